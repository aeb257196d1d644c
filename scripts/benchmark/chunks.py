"""A training step by chunk length, of one memory and of TNT's hierarchy.

Small chunks follow the text more closely, and take more steps one after another. TNT's
local memories keep the small chunks and read their shards side by side.
"""

from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jax.extend import core

from scripts.benchmark.case import Case
from scripts.benchmark.isolation import Measurement, measure
from scripts.benchmark.options import Options
from scripts.benchmark.report import Row
from titans_eqx.config import ModelConfig
from titans_eqx.models.build import build_memory


def by_chunk_len(
    options: Options,
    chunk_lens: Sequence[int],
    length: int,
    batch: int,
    global_chunk: int,
    shard: int,
) -> tuple[list[Row], Measurement]:
    """Times and scan steps of LMM; both cases of a chunk length take turns.

    Args:
        options: The user's.
        chunk_lens: Of the memory, or of TNT's one local memory.
        length: Tokens in a sequence.
        batch: Sequences.
        global_chunk: Chunk length of TNT's global memory.
        shard: Tokens after which TNT's local memory starts anew.
    """
    rows: list[Row] = []
    for chunk_len in chunk_lens:
        cases = {
            "one memory": _case(
                options, length, batch, {"model.memory.chunk_len": chunk_len}
            ),
            "TNT": _case(
                options,
                length,
                batch,
                {
                    "model.memory.rule": "large_chunk",
                    "model.memory.chunk_len": global_chunk,
                    "model.memory.local.chunk_lens": [chunk_len],
                    "model.memory.local.shard_len": shard,
                },
            ),
        }
        results = measure(list(cases.values()), options.repeats)
        for (name, case), one in zip(cases.items(), results, strict=True):
            rows.append(
                {
                    "memory": name,
                    "chunk": chunk_len,
                    "scan_steps": memory_scan_steps(case.config.model, length),
                    "time_over_one_memory": one.seconds / results[0].seconds,
                    **one.columns,
                }
            )
    return rows, results[-1]


def memory_scan_steps(config: ModelConfig, length: int) -> int:
    """Scan steps of one memory layer's forward pass over a sequence."""
    memory = eqx.filter_eval_shape(build_memory, config, key=jr.key(0))
    arrays, static = eqx.partition(
        memory, lambda leaf: isinstance(leaf, jax.ShapeDtypeStruct)
    )
    x = jax.ShapeDtypeStruct((length, config.d_model), jnp.float32)
    return count_scan_steps(lambda a, x: eqx.combine(a, static)(x)[0], arrays, x)


def count_scan_steps(function: Callable[..., Any], *inputs: Any) -> int:
    """Steps of all scans that one call does; what a step of one scans counts itself."""
    return _count(jax.make_jaxpr(function)(*inputs).jaxpr)


def _count(jaxpr: core.Jaxpr) -> int:
    total = 0
    for equation in jaxpr.eqns:
        inner = sum(map(_count, core.jaxprs_in_params(equation.params)))
        is_scan = equation.primitive.name == "scan"
        total += equation.params["length"] * max(1, inner) if is_scan else inner
    return total


def _case(options: Options, length: int, batch: int, keys: dict[str, object]) -> Case:
    config = options.config(
        model__pattern="lmm",
        data__seq_len=length,
        train__batch_size=batch,
        **{key.replace(".", "__"): value for key, value in keys.items()},
    )
    return Case(kind="train", config=config)
