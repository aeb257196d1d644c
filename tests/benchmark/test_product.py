"""The product that a roofline is measured by."""

import jax.numpy as jnp
import pytest

from scripts.benchmark import product, worker
from scripts.benchmark.case import Case, read_setting
from scripts.benchmark.program import Program
from scripts.benchmark.train_programs import train_program
from tests.benchmark.test_train_programs import SMALL


def train_case(precision):
    config = read_setting([*SMALL, f"train.precision={precision}"])
    return Case(kind="train", config=config, product_side=4)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_the_product_is_of_the_type_of_the_case(dtype, monkeypatch):
    program = Program(run=lambda: None, n_tokens=1, n_parameters=1, dtype=dtype)
    monkeypatch.setattr(worker, "build_program", lambda case: program)
    dtypes = set()

    def seconds_of(run):
        dtypes.add(run().dtype)
        return 1.0

    monkeypatch.setattr(product, "seconds_of", seconds_of)
    message = {"case": train_case("float32").model_dump(mode="json")}
    _, tasks = worker.build(message)
    tasks["multiply"]()
    assert dtypes == {jnp.dtype(dtype)}


@pytest.mark.parametrize(
    ("precision", "dtype"), [("float32", jnp.float32), ("mixed", jnp.bfloat16)]
)
def test_a_step_multiplies_in_the_precision_of_its_config(precision, dtype):
    assert train_program(train_case(precision)).dtype == dtype
