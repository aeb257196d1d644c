"""What is particular to MAG and MAL: a memory that has read the persistent tokens."""

import equinox as eqx
import jax
import numpy as np

from tests.models.small import small_block, small_config, stream

# TNT: global chunks of six tokens, which are taken in two by two, and local ones.
CONFIG = small_config(
    pattern="mag",
    memory={
        "rule": "large_chunk",
        "chunk_len": 6,
        "depth": 1,
        "decay": "none",
        "local": {"chunk_lens": [2], "shard_len": 4, "depth": 1},
    },
    attention={"persistent_in_memory": True, "n_persistent": 3},
)
N_TOKENS = 9  # neither whole chunks nor whole blocks of them


def test_a_sequence_after_the_prefix_may_have_any_length(x64):

    @eqx.filter_jit
    def both(mixer, x):
        def step(state, row):
            y, state = mixer.step(row, state)
            return state, y

        state, rows = jax.lax.scan(step, mixer.init_state(), x)
        return mixer(x, None), (rows, state)

    at_once, by_step = both(small_block(CONFIG).mixer, stream(N_TOKENS))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-10),
        at_once,
        by_step,
    )
