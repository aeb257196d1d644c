"""The child process: builds one case, then runs it whenever it is told to."""

import json
from collections.abc import Callable
from importlib.metadata import version
from typing import Any, Final

import jax

from scripts.benchmark.case import Case
from scripts.benchmark.memory_programs import memory_program
from scripts.benchmark.product import Product
from scripts.benchmark.program import Program
from scripts.benchmark.serving import serve
from scripts.benchmark.stream_programs import (
    decode_program,
    forward_program,
    prefill_program,
)
from scripts.benchmark.timing import seconds_of
from scripts.benchmark.train_programs import train_program
from titans_eqx.errors import UserError
from titans_eqx.sharding.mesh import use_all_cpu_cores

SPREAD: Final = ("memory_forward", "memory_gradient", "train", "compile")
"""What runs on all devices; a single sequence runs on one, as in generation."""


def build_program(case: Case) -> Program:
    """Build what a case runs, without running it."""
    match case.kind:
        case "memory_forward" | "memory_gradient":
            return memory_program(case)
        case "train" | "compile":
            return train_program(case)
        case "forward":
            return forward_program(case)
        case "prefill":
            return prefill_program(case)
        case "decode":
            return decode_program(case)


def build(
    message: dict[str, Any],
) -> tuple[dict[str, Any], dict[str, Callable[[], float]]]:
    """What `serve` needs for the case in a message."""
    case = Case.model_validate_json(json.dumps(message["case"]))
    if case.kind in SPREAD:
        use_all_cpu_cores()
    program = build_program(case)
    if program.is_run_warm:
        jax.block_until_ready(program.run())
    device = jax.devices()[0]
    facts = {
        "tokens": program.n_tokens,
        "parameters": program.n_parameters,
        "platform": device.platform,
        "device": device.device_kind,
        "software": f"jax {version('jax')}",
    }
    product = Product(case.product_side, program.dtype)
    return facts, {
        "run": lambda: seconds_of(program.run),
        "count": program.useful_flops,
        "multiply": product.flops_per_second,
    }


def accelerator_peak_bytes() -> int:
    """The most memory of the accelerator in use so far; 0 if there is none."""
    statistics = jax.devices()[0].memory_stats() or {}
    return statistics.get("peak_bytes_in_use", 0)


if __name__ == "__main__":
    serve(build, accelerator_peak_bytes, UserError)
