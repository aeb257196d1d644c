"""The child process: builds one case, then runs it whenever it is told to.

Messages are lines of JSON. The first one that comes in holds the case; the answer says
what was built. Each further one names what is to be done, and is answered by a number.
"""

import json
import os
import sys
from collections.abc import Callable
from importlib.metadata import version
from typing import Final, TextIO

import jax

from scripts.benchmark.case import Case
from scripts.benchmark.memory_programs import memory_program
from scripts.benchmark.product import Product
from scripts.benchmark.program import Program
from scripts.benchmark.resident import forget_peak, peak_mib
from scripts.benchmark.stream_programs import (
    decode_program,
    forward_program,
    prefill_program,
)
from scripts.benchmark.timing import seconds_of
from scripts.benchmark.train_programs import compile_program, train_program
from titans_eqx.errors import UserError
from titans_eqx.training import use_all_cpu_cores

SPREAD: Final = ("memory_forward", "memory_gradient", "train", "compile")
"""What runs on all devices; a single sequence runs on one, as in generation."""


def build_program(case: Case) -> Program:
    """Build what a case runs.

    Args:
        case: The case.

    Returns:
        Its program, not yet run.
    """
    match case.kind:
        case "memory_forward" | "memory_gradient":
            return memory_program(case)
        case "train":
            return train_program(case)
        case "compile":
            return compile_program(case)
        case "forward":
            return forward_program(case)
        case "prefill":
            return prefill_program(case)
        case "decode":
            return decode_program(case)


def serve(questions: TextIO, answer: Callable[[dict], None]) -> None:
    """Answer questions about one case until there are no more.

    Args:
        questions: Lines of JSON.
        answer: Sends one object back.
    """
    case = Case.model_validate_json(json.dumps(json.loads(next(questions))["case"]))
    if case.kind in SPREAD:
        use_all_cpu_cores()
    program = build_program(case)
    if program.is_run_warm:
        jax.block_until_ready(program.run())
    start_peak = peak_mib()
    forget_peak()
    device = jax.devices()[0]
    answer(
        {
            "tokens": program.n_tokens,
            "parameters": program.n_parameters,
            "platform": device.platform,
            "device": device.device_kind,
            "software": f"jax {version('jax')}",
        }
    )
    product = None
    for question in questions:
        match json.loads(question)["do"]:
            case "run":
                value = seconds_of(program.run)
            case "count":
                value = program.useful_flops()
            case "multiply":
                product = product or Product(case.product_side)
                value = product.flops_per_second()
            case "peak":
                value = max(start_peak, peak_mib())
            case "running peak":
                value = peak_mib()
            case unknown:
                raise ValueError(f"there is nothing called {unknown} to do.")
        answer({"value": value})


def main() -> None:
    """Serve standard input."""
    # Whatever else prints, in Python or below it, must not get among the answers.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def answer(message: dict) -> None:
        print(json.dumps(message), file=answers, flush=True)

    try:
        serve(sys.stdin, answer)
    except UserError as error:
        answer({"error": str(error)})


if __name__ == "__main__":
    main()
