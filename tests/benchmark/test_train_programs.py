"""Steps that the benchmark measures."""

import jax

from scripts.benchmark.case import Case, read_setting
from scripts.benchmark.train_programs import train_program

SMALL = (
    "model.pattern=transformer",
    "model.d_model=16",
    "model.n_layers=1",
    "data.seq_len=16",
    "train.batch_size=4",
    "mesh.data=1",
)


def loss_of_first_step(*overrides: str) -> float:
    case = Case(kind="train", config=read_setting([*SMALL, *overrides]))
    with jax.numpy_dtype_promotion("standard"):  # optax's own arithmetic needs it
        _, metrics = train_program(case).run()
    return float(metrics.loss)


def test_a_step_has_the_precision_of_its_config() -> None:
    in_full = loss_of_first_step()
    assert 0 < abs(loss_of_first_step("train.precision=mixed") - in_full) < 0.01
