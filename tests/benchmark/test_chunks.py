import jax
import jax.numpy as jnp
import pytest

from scripts.benchmark.chunks import count_scan_steps, memory_scan_steps
from titans_eqx.config import MemoryConfig, ModelConfig


def scanned(x, n, body=lambda x: x + 1):
    return jax.lax.scan(lambda x, _: (body(x), None), x, length=n)[0]


@pytest.mark.parametrize(
    ("function", "n_steps"),
    {
        "none": (lambda x: x + 1, 0),
        "one": (lambda x: scanned(x, 5), 5),
        "two": (lambda x: scanned(scanned(x, 5), 7), 12),
        "nested": (lambda x: scanned(x, 5, lambda x: scanned(x, 3)), 15),
        "jit": (lambda x: jax.jit(lambda x: scanned(x, 4))(x), 4),
        "side by side": (jax.vmap(lambda x: scanned(x, 6)), 6),
    }.values(),
    ids=["none", "one", "two", "nested", "jit", "side by side"],
)
def test_steps_of_scans_are_counted_and_those_side_by_side_once(function, n_steps):
    assert count_scan_steps(function, jnp.zeros(2)) == n_steps


def test_shards_shorten_the_way_through_a_sequence():
    one = MemoryConfig(chunk_len=8)
    tnt = MemoryConfig(
        rule="large_chunk",
        chunk_len=64,
        local={"chunk_lens": [8], "shard_len": 32},
    )
    config = ModelConfig(pattern="lmm", d_model=16, memory=one)
    assert memory_scan_steps(config, 256) == 256 // 8
    config = ModelConfig(pattern="lmm", d_model=16, memory=tnt)
    assert memory_scan_steps(config, 256) == 256 // 64 + 32 // 8
