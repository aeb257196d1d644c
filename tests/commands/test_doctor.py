import os

import jax
import pytest
from click.testing import CliRunner

from titans_eqx.commands.train import main
from titans_eqx.evaluation.self_test import Outcome


@pytest.mark.slow
def test_the_doctor_finds_that_all_works(monkeypatch):
    monkeypatch.setenv("JAX_TRACEBACK_FILTERING", "off")
    monkeypatch.setenv("XLA_FLAGS", os.environ["XLA_FLAGS"])  # restored at the end
    with jax.numpy_dtype_promotion("standard"):  # optax mixes integers and reals
        result = CliRunner().invoke(main, ["--doctor"])
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert sum(": ok (" in line for line in lines) == 4
    assert any(line.split()[:1] == ["jax"] for line in lines)
    assert sum(line.startswith("device ") for line in lines) == len(jax.devices())
    assert "JAX_TRACEBACK_FILTERING=off" in lines


def test_what_fails_is_said_and_is_exit_code_1(monkeypatch):
    outcomes = [
        Outcome(claim="one", failure="", seconds=1.0),
        Outcome(claim="two", failure="they differ", seconds=2.0),
    ]
    monkeypatch.setattr("titans_eqx.commands.doctor.self_test", lambda: outcomes)
    result = CliRunner().invoke(main, ["--doctor"])
    assert result.exit_code == 1
    assert "two: failed: they differ (2.0 s)" in result.stdout
    assert result.stderr.splitlines()[-1].startswith("error: 1 of the tests above")
