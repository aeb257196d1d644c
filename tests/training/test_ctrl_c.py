import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from titans_eqx.checkpoint.checkpoints import Checkpoints
from titans_eqx.checkpoint.run_folder import RunFolder
from titans_eqx.config import to_toml
from titans_eqx.training import TrainContext

ROOT = Path(__file__).parents[2]


def last_state(folder, config):
    items = TrainContext.build(config, abstract=True).state.items()
    with Checkpoints(folder / "checkpoints", read_only=True) as checkpoints:
        restored = checkpoints.restore_latest(items)
    assert restored is not None
    assert restored.refused == ()
    return restored.step, jax.tree.leaves(restored.items)


@pytest.mark.slow
def test_ctrl_c_is_answered_while_compiling_and_at_the_second_time_ends_the_process(
    finished_run, small_config, tmp_path
):
    config, reference, _ = finished_run
    folder = shutil.copytree(reference, tmp_path / "run")
    # A rate that no run had before, so that the step is compiled and not loaded.
    rate = 1e-3 * (1 + time.time_ns() % 1_000_003 * 1e-8)
    longer = small_config(
        train__sample_every=3, train__steps=1000, optimizer__learning_rate=rate
    )
    (tmp_path / "longer.toml").write_text(to_toml(longer))
    command = [sys.executable, "scripts/train.py", "--run-dir", str(folder)]
    with subprocess.Popen(
        [*command, "--config", str(tmp_path / "longer.toml")],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT), "JAX_LOG_COMPILES": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        output = process.stdout
        assert output is not None
        said = []

        def read_until(text):
            for line in output:
                said.append(line)
                if text in line:
                    return
            raise AssertionError("".join(said))

        try:
            # From here on the main thread is in the compiler.
            read_until("Finished jaxpr to MLIR module conversion jit(step)")
            process.send_signal(signal.SIGINT)
            read_until("stopping after this step; again to quit now")
            assert not [line for line in said if "XLA compilation of jit(step)" in line]
            process.send_signal(signal.SIGINT)
            began = time.monotonic()
            assert process.wait(timeout=60) == 130
            assert time.monotonic() - began < 1
            said += output.readlines()
        finally:
            process.kill()
    assert not [line for line in said if "XLA compilation of jit(step)" in line]
    assert not [line for line in said if "Traceback" in line]
    step, leaves = last_state(folder, config)
    expected_step, expected = last_state(reference, config)
    assert step == expected_step == 6
    for one, other in zip(leaves, expected, strict=True):
        np.testing.assert_array_equal(one, other)
    with RunFolder(folder):  # which is free again
        pass
