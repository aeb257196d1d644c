import io

import pytest
from rich.console import Console

from tests.checkpoint.test_metrics_log import read_events
from titans_eqx.checkpoint.run_folder import RunFolder
from titans_eqx.config import RunConfig, load_config
from titans_eqx.training.report import TrainingDisplay
from titans_eqx.training.run_output import RunOutput

CONFIG = RunConfig()


@pytest.fixture
def begin(tmp_path):
    """A function that lets a run begin after some steps, and returns what it prints."""

    def make(*, first_step, tensorboard=False):
        console = Console(file=io.StringIO(), width=200)
        display = TrainingDisplay(CONFIG.train.steps, console=console)
        with RunFolder(tmp_path) as folder:
            output = RunOutput(
                folder,
                CONFIG,
                display,
                first_step=first_step,
                tensorboard=tensorboard,
                profile=None,
            )
            output.begin()
            output.close()
        return console.file.getvalue()

    return make


def test_what_was_moved_aside_is_said(begin, tmp_path):
    mine = tmp_path / "config.toml"
    mine.write_text("train.seed = 7")
    place = tmp_path / "previous"
    assert begin(first_step=0) == f"earlier results are now in {place / '1'}\n"
    assert load_config(mine) == CONFIG
    assert begin(first_step=0) == ""
    mine.write_text("train.seed = 7")
    message = f"the earlier config.toml is now in {place / '2'}\n"
    assert begin(first_step=5) == message


@pytest.mark.parametrize("first_step", [0, 5])
def test_tensorboard_starts_at_the_first_step_that_is_written(
    begin, tmp_path, first_step
):
    pytest.importorskip("tensorboardX")
    begin(first_step=first_step, tensorboard=True)
    (events,) = (tmp_path / "tensorboard").iterdir()
    assert read_events(events)[-1].step == first_step + 1
