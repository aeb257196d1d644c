"""Long adversarial streams: whatever is read, all stays finite and of one size."""

from collections.abc import Iterator
from itertools import product
from typing import Any, Final

import click
import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float, Int, PyTree

from scripts.benchmark.isolation import BenchmarkError
from scripts.benchmark.options import several
from scripts.benchmark.report import Row
from scripts.benchmark.serving import MIB, forget_peak, peak_resident_bytes
from titans_eqx.commands.command import command
from titans_eqx.config import AttentionConfig, MemoryConfig, ModelConfig
from titans_eqx.config.model import Block
from titans_eqx.evaluation.report import show
from titans_eqx.models import ModelState, TitansLM, build_model

BLOCK_LEN: Final = 512
SILENCE: Final = 480  # tokens of a block that are all one, before a burst
LINEAR: Final = {"depth": 1, "norm": False}
MEMORIES: Final[dict[str, dict[str, Any]]] = {
    "titans": {},
    "titans without decay": {"decay": "none"},
    "delta": {"rule": "delta", **LINEAR},
    "gated delta": {
        "rule": "delta",
        "error_after_decay": True,
        "use_momentum": False,
        **LINEAR,
    },
    "omega": {"rule": "omega"},
    "yaad": {"loss": "huber"},
    "moneta": {"loss": "power", "retention": "norm"},
    "elastic net": {"retention": "elastic_net"},
    "memora": {"rule": "memora", "use_momentum": False},
    "large chunk": {"rule": "large_chunk", "chunk_len": 256},
    "muon": {"rule": "large_chunk", "update": "muon"},
    "tnt": {
        "rule": "large_chunk",
        "chunk_len": 256,
        "local": {"chunk_lens": [8], "shard_len": 128},
    },
}
PATTERNS: Final[tuple[Block, ...]] = ("lmm", "mac", "mag", "mal")
DTYPES: Final = ("float32", "bfloat16")
EARLY: Final = 0.1  # share of a stream after which memory and state are compared


def small_model(pattern: Block, memory: str) -> ModelConfig:
    """A model with a memory of a given name (see `MEMORIES`) in each of two layers."""
    options = {"n_heads": 2, "chunk_len": 16, "expansion": 2, **MEMORIES[memory]}
    return ModelConfig(
        pattern=pattern,
        d_model=32,
        n_layers=2,
        vocab_size=256,
        memory=MemoryConfig.model_validate(options),
        attention=AttentionConfig(segment_len=64, window=64),
    )


@command()
@click.option(
    "--tokens",
    default=1_000_000,
    show_default=True,
    help=f"Of each stream; whole blocks of {BLOCK_LEN} are read.",
)
@several("--pattern", *PATTERNS, type=click.Choice(PATTERNS), help="Block")
@click.option(
    "--memory",
    "memories",
    multiple=True,
    default=tuple(MEMORIES),
    type=click.Choice(list(MEMORIES)),
    help="Memory; may be repeated. [default: all]",
)
@several("--dtype", *DTYPES, type=click.Choice(DTYPES), help="Of the parameters")
def endurance(
    tokens: int,
    patterns: tuple[Block, ...],
    memories: tuple[str, ...],
    dtypes: tuple[str, ...],
) -> None:
    """Long adversarial streams through small models; none may stop being finite."""
    n_blocks = tokens // BLOCK_LEN
    if n_blocks < 1:
        raise BenchmarkError(
            f"--tokens must be at least {BLOCK_LEN}, one block, got {tokens}."
        )
    rows: list[Row] = []
    for pattern, memory, dtype in product(patterns, memories, dtypes):
        config = small_model(pattern, memory)
        for row in endure(config, n_blocks, dtype):
            rows.append({"pattern": pattern, "memory": memory, "dtype": dtype, **row})
            click.echo("  ".join(map(str, rows[-1].values())), err=True)
    show(rows, f"{n_blocks * BLOCK_LEN:,} tokens a stream")
    broken = [row for row in rows if not np.isfinite(row["state_late"])]
    if broken:
        names = (f"{r['pattern']} {r['memory']} on {r['stream']}" for r in broken)
        raise BenchmarkError(f"no longer finite: {', '.join(names)}.")


def streams(vocab_size: int, n_blocks: int) -> dict[str, Iterator[np.ndarray]]:
    """Token blocks by the name of the stream."""
    rng = np.random.default_rng(0)
    last = vocab_size - 1

    def silences() -> Iterator[np.ndarray]:
        for _ in range(n_blocks):
            burst = rng.integers(0, vocab_size, BLOCK_LEN - SILENCE)
            yield np.concatenate([np.zeros(SILENCE, int), burst])

    return {
        "one byte": (np.full(BLOCK_LEN, last) for _ in range(n_blocks)),
        "extremes in turn": (
            np.where(np.arange(BLOCK_LEN) % 2, 0, last) for _ in range(n_blocks)
        ),
        "random": (rng.integers(0, vocab_size, BLOCK_LEN) for _ in range(n_blocks)),
        "silences": silences(),
    }


def endure(config: ModelConfig, n_blocks: int, dtype: str) -> Iterator[Row]:
    """Read all streams with a freshly drawn model, the state carried along each.

    Args:
        config: The model.
        n_blocks: Length of each stream.
        dtype: Of the parameters, and so of all that is not kept wider on purpose.

    Yields:
        For each stream: programs compiled so far; the largest logit; the largest number
        in the state after a tenth of it and at its end, infinite if anything was ever
        not finite; and by how many MiB peak memory grew after that tenth.
    """
    model = eqx.filter_jit(build_model)(config, key=jr.key(0))
    model = jax.tree.map(
        lambda x: x.astype(dtype) if eqx.is_inexact_array(x) else x, model
    )
    n_programs = 0

    @eqx.filter_jit
    def read(
        model: TitansLM, block: Int[Array, " block"], state: ModelState
    ) -> tuple[Float[Array, ""], Float[Array, ""], ModelState]:
        nonlocal n_programs
        n_programs += 1  # once for each time that it is traced
        logits, state = model(block, state)
        return _largest(logits), _largest(state), state

    early = max(1, int(EARLY * n_blocks))
    for stream, blocks in streams(config.vocab_size, n_blocks).items():
        state = model.init_state()
        logit_sizes, state_sizes, early_bytes = [], [], 0
        for block in blocks:
            logit, size, state = read(model, jnp.asarray(block, jnp.int32), state)
            logit_sizes.append(float(logit))
            state_sizes.append(float(size))
            if len(state_sizes) == early:
                forget_peak()
                early_bytes = peak_resident_bytes()
        is_finite = np.all(np.isfinite([logit_sizes, state_sizes]))
        yield {
            "stream": stream,
            "tokens": n_blocks * BLOCK_LEN,
            "programs": n_programs,
            "largest_logit": max(logit_sizes),
            "state_early": state_sizes[early - 1],
            "state_late": state_sizes[-1] if is_finite else np.inf,
            "growth_mib": (peak_resident_bytes() - early_bytes) / MIB,
        }


def _largest(tree: PyTree[Array]) -> Float[Array, ""]:
    """The largest absolute value; infinite if any is not finite."""
    sizes = [
        jnp.max(jnp.where(jnp.isfinite(x), jnp.abs(x), jnp.inf)).astype(jnp.float32)
        for x in jax.tree.leaves(tree)
        if eqx.is_inexact_array(x) and x.size
    ]
    return jnp.max(jnp.stack(sizes))
