"""What a run leaves for people: its config, its metrics and samples."""

from jaxtyping import PyTree

from titans_eqx.checkpoint.metrics_log import (
    MetricsLog,
    TensorBoardLog,
    read_metrics,
    require_tensorboard,
)
from titans_eqx.checkpoint.run_folder import RunFolder
from titans_eqx.config import RunConfig
from titans_eqx.files import append
from titans_eqx.sharding.processes import from_primary, is_primary
from titans_eqx.terminal import escape_controls
from titans_eqx.training.profile_window import Profiler, ProfileWindow
from titans_eqx.training.report import TrainingDisplay


class RunOutput:
    """Writes the files of a run that people read, and shows what it writes.

    In a run of several processes that of process 0 does; the others' do nothing.
    """

    def __init__(
        self,
        folder: RunFolder,
        config: RunConfig,
        display: TrainingDisplay,
        *,
        first_step: int,
        tensorboard: bool,
        profile: ProfileWindow | None,
    ) -> None:
        """Prepare; nothing is written before the first step or evaluation.

        Args:
            folder: Of the run.
            config: Of the run.
            display: Where everything is shown too.
            first_step: Number of steps that are done already.
            tensorboard: Mirror the metrics into TensorBoard events.
            profile: Steps to record for a profiler.

        Raises:
            UserError: If the package tensorboardX is wanted and missing, or no step of
                the profile is left.
        """
        if tensorboard:
            require_tensorboard()
        if profile is not None:
            profile.require(first_step, config.train.steps)
        self._is_primary = is_primary()
        self._folder = folder
        self._config = config
        self._display = display
        self._first_step = first_step
        self._with_events = tensorboard
        self._events: TensorBoardLog | None = None
        self._profiler = Profiler(profile if self._is_primary else None, folder.profile)

    def has_evaluation(self, step: int) -> bool:
        """Whether the metrics have an evaluation at a step; the same in all processes.

        Raises:
            OSError: If they cannot be read.
        """
        return from_primary(
            lambda: any(
                record.get("step") == step and "eval_loss" in record
                for record in read_metrics(self._folder.metrics)
            )
        )

    def begin(self) -> None:
        """Write the config, see `RunFolder.write_config`, and open; before any step.

        Raises:
            OSError: If the files cannot be written.
            UserError: If the config would replace what cannot be moved.
        """
        is_new = self._first_step == 0
        moved = self._folder.write_config(self._config, is_new=is_new)
        if moved is not None:
            what = "earlier results are" if is_new else "the earlier config.toml is"
            self._display.message(f"{what} now in {moved}")
        self.open()

    def open(self) -> None:
        """Open the metrics, out of which what is done over again is moved.

        Raises:
            OSError: If the files cannot be written.
        """
        if not self._is_primary:
            return
        self._metrics = MetricsLog(self._folder.metrics)
        self._metrics.truncate_after(self._first_step)
        if self._with_events:
            self._events = TensorBoardLog(
                self._folder.tensorboard, first_step=self._first_step + 1
            )

    def record(self, record: dict[str, int | float]) -> None:
        """Write numbers, among them `step`."""
        if not self._is_primary:
            return
        self._metrics.write(record)
        if self._events is not None:
            self._events.write(record)
        self._display.log(int(record["step"]), record)

    def sample(self, step: int, text: str) -> None:
        """Write a text of the model's."""
        if not self._is_primary:
            return
        self._display.sample(step, text)
        # The file will be shown on a terminal too.
        entry = f"--- step {step}\n{escape_controls(text)}\n"
        self._folder.samples.touch()
        append(self._folder.samples, entry.encode())

    def before_step(self, step: int) -> None:
        """Start the profile, if it is time for it."""
        self._profiler.before(step)

    def after_step(self, step: int, state: PyTree) -> None:
        """End the profile, if it is time for it; then `state` is waited for."""
        if self._profiler.after(step, state):
            self._display.message(f"the profile is complete, up to step {step:,}")

    def close(self) -> None:
        """Close the files, also that of a profile which a stop has cut short."""
        try:
            self._profiler.close()
        finally:
            if self._events is not None:
                self._events.close()
