"""What a run leaves for people: its config, its metrics and samples."""

from jaxtyping import PyTree

from titans_eqx.checkpoint.metrics_log import MetricsLog, TensorBoardLog
from titans_eqx.checkpoint.run_folder import RunFolder
from titans_eqx.config import RunConfig, to_toml
from titans_eqx.files import append, write_durably
from titans_eqx.sharding.processes import is_primary
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
        """Write the config, and move what is to be done over again out of the metrics.

        Args:
            folder: Of the run.
            config: Of the run.
            display: Where everything is shown too.
            first_step: Number of steps that are done already.
            tensorboard: Mirror the metrics into TensorBoard events.
            profile: Steps to record for a profiler.

        Raises:
            OSError: If the files cannot be written.
            UserError: If the package tensorboardX is wanted and missing, or no step of
                the profile is left.
        """
        if profile is not None:
            profile.require(first_step, config.train.steps)
        self._is_primary = is_primary()
        self._display = display
        self._samples = folder.samples
        self._events: TensorBoardLog | None = None
        self._profiler = Profiler(profile if self._is_primary else None, folder.profile)
        if not self._is_primary:
            return
        self._metrics = MetricsLog(folder.metrics)
        self._metrics.truncate_after(first_step)
        write_durably(folder.config, to_toml(config).encode())
        if tensorboard:
            self._events = TensorBoardLog(folder.tensorboard, first_step=first_step)

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
        self._samples.touch()
        append(self._samples, entry.encode())

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
