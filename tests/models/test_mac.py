"""What is particular to MAC: segments, and a memory that can be switched off."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

from tests.models.small import jittered, small_config, stream
from titans_eqx.config import AttentionConfig
from titans_eqx.models.mac import MemoryAsContext

SEGMENT, TAPS = 4, 3  # of `small_config`
call = eqx.filter_jit(lambda mixer, x, state: mixer(x, state))


def build(config):
    return jittered(eqx.filter_jit(MemoryAsContext)(config, key=jr.key(0)))


def test_a_segment_starts_when_the_one_before_is_full(x64):
    mixer, x = build(small_config()), stream(10)
    state, phases, retrieved = mixer.init_state(), [], []
    for row in x:
        _, state = eqx.filter_jit(mixer.step)(row, state)
        phases.append(int(state.phase))
        retrieved.append(np.asarray(state.segment_weights[0]))
    assert phases == [1, 2, 3, 0, 1, 2, 3, 0, 1, 2]
    # The weights that are retrieved from change at a segment's end, and only there.
    changes = [np.any(a != b) for a, b in zip(retrieved, retrieved[1:], strict=False)]
    assert np.flatnonzero(changes).tolist() == [2, 6]


def test_a_segment_retrieves_from_the_weights_at_its_start(x64):
    mixer, x = build(small_config()), stream(2 * SEGMENT)
    _, half = call(mixer, x[:SEGMENT], None)
    for weights, now in zip(
        half.segment_weights, half.memory.memory.weights, strict=True
    ):
        np.testing.assert_array_equal(weights, now)
    _, later = call(mixer, x[SEGMENT : SEGMENT + 3], half)
    jax.tree.map(
        np.testing.assert_array_equal, later.segment_weights, half.segment_weights
    )


OFF = {"max_step": 0.0, "decay": "none"}


@pytest.mark.parametrize(("memory", "is_heard"), [({}, True), (OFF, False)])
def test_only_the_memory_carries_over_to_later_segments(x64, memory, is_heard):
    """With a step of zero and no forgetting it stays M_0 and tells nothing.

    Attention ends with its segment; what is left are the last inputs of the
    convolutions, so the change lies before those.
    """
    mixer, x = build(small_config(memory=memory)), np.array(stream(3 * SEGMENT))
    changed = x.copy()
    changed[: SEGMENT - (TAPS - 1)] += 1.0
    before, after = (call(mixer, jnp.asarray(a), None)[0] for a in (x, changed))
    assert np.any(before[:SEGMENT] != after[:SEGMENT])
    # In the second segment the written stream still holds what attention made of the
    # change; two segments later only the memory does.
    assert np.any(before[2 * SEGMENT :] != after[2 * SEGMENT :]) == is_heard


def test_a_segment_that_cuts_a_chunk_is_refused():
    attention = AttentionConfig(n_heads=2, segment_len=5)
    config = small_config().model_copy(update={"attention": attention})
    with pytest.raises(ValueError, match="segment_len=5 and chunk_len=2"):
        MemoryAsContext(config, key=jr.key(0))
