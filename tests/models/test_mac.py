"""What is particular to MAC: segments, and a memory that can be switched off."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.models.small import small_block, small_config, stream
from tests.sharding.devices import over_devices
from titans_eqx.attention import SegmentAttention
from titans_eqx.models.mac import MemoryAsContext

SEGMENT, KERNEL_SIZE = 4, 3  # of `small_config`
call = eqx.filter_jit(lambda mixer, x, state: mixer(x, state))


def build(config):
    return small_block(config).mixer


def test_a_segment_starts_when_the_one_before_is_full(x64):
    mixer, x = build(small_config()), stream(10)
    state, offsets, retrieved = mixer.init_state(), [], []
    for row in x:
        _, state = eqx.filter_jit(mixer.step)(row, state)
        offsets.append(int(state.segment_offset))
        retrieved.append(np.asarray(state.snapshot[0]))
    assert offsets == [1, 2, 3, 0, 1, 2, 3, 0, 1, 2]
    # The weights that are retrieved from change at a segment's end, and only there.
    changes = [np.any(a != b) for a, b in zip(retrieved, retrieved[1:], strict=False)]
    assert np.flatnonzero(changes).tolist() == [2, 6]


def test_a_segment_retrieves_from_the_weights_at_its_start(x64):
    mixer, x = build(small_config()), stream(2 * SEGMENT)
    _, half = call(mixer, x[:SEGMENT], None)
    for weights, now in zip(half.snapshot, half.memory.heads.weights, strict=True):
        np.testing.assert_array_equal(weights, now)
    _, later = call(mixer, x[SEGMENT : SEGMENT + 3], half)
    jax.tree.map(np.testing.assert_array_equal, later.snapshot, half.snapshot)


@pytest.mark.slow
def test_a_stream_may_start_with_a_step_on_each_device(x64):
    """From a state that differs nowhere yet, over the end of a segment."""
    mixer = build(small_config())

    def read(rows):
        state, reads = mixer.init_state(), []
        for row in rows:
            y, state = mixer.step(row, state)
            reads.append(y)
        return jnp.stack(reads)

    x = stream(jax.device_count() * (SEGMENT + 1))
    rows = x.reshape(-1, SEGMENT + 1, x.shape[1])
    expected = jax.jit(jax.vmap(read))(rows).reshape(x.shape)
    np.testing.assert_allclose(over_devices(read, x), expected, atol=1e-12)


@pytest.mark.parametrize("is_off", [False, True])
def test_only_the_memory_carries_over_to_later_segments(x64, is_off):
    """Switched off it stays M_0 and tells nothing.

    Attention ends with its segment; what is left are the last inputs of the
    convolutions, so the change lies before those.
    """
    mixer, x = build(small_config(memory={"off": is_off})), np.array(stream(12))
    changed = x.copy()
    changed[: SEGMENT - (KERNEL_SIZE - 1)] += 1.0
    before, after = (call(mixer, jnp.asarray(a), None)[0] for a in (x, changed))
    assert np.any(before[:SEGMENT] != after[:SEGMENT])
    # In the second segment the written stream still holds what attention made of the
    # change; two segments later only the memory does.
    assert np.any(before[2 * SEGMENT :] != after[2 * SEGMENT :]) == (not is_off)


def test_a_segment_that_cuts_a_chunk_is_refused():
    mixer = build(small_config())
    attention = SegmentAttention(mixer.attention.heads, (), 5)
    with pytest.raises(ValueError, match="segment_len=5 and chunk_len=2"):
        MemoryAsContext(mixer.memory, attention, mixer.write_norm, mixer.gate)
