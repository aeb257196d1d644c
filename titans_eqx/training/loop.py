"""The training run: steps, metrics, evaluations, samples, checkpoints."""

import contextlib
import functools
from concurrent.futures import Future
from pathlib import Path
from typing import Final

import jax
import numpy as np
from rich.console import Console

from titans_eqx.checkpoint.checkpoints import Checkpoints
from titans_eqx.checkpoint.kept import failures_say_what_is_kept
from titans_eqx.checkpoint.metadata import check_resumable, metadata, saved_config
from titans_eqx.checkpoint.run_folder import RunFolder
from titans_eqx.config import RunConfig
from titans_eqx.data.dataset import TextData, open_dataset
from titans_eqx.data.example import Example, spread
from titans_eqx.sharding.agreed_stop import AgreedStop
from titans_eqx.sharding.connection import require_joined
from titans_eqx.sharding.mesh import batch_sharding
from titans_eqx.sharding.processes import is_primary
from titans_eqx.training.compressors import beside_compressors, eval_bits_per_byte
from titans_eqx.training.context import TrainContext, run_mesh
from titans_eqx.training.divergence import DivergenceCheck
from titans_eqx.training.evaluate import evaluate
from titans_eqx.training.loss import Batch, batch_loss
from titans_eqx.training.profile_window import ProfileWindow
from titans_eqx.training.programs import StepPrograms
from titans_eqx.training.report import TrainingDisplay
from titans_eqx.training.run_output import RunOutput
from titans_eqx.training.run_summary import run_summary
from titans_eqx.training.sample import write_sample
from titans_eqx.training.starting_weights import check_source, ignored_start, start_from
from titans_eqx.training.state import TrainState
from titans_eqx.training.step import StepMetrics, build_eval_step
from titans_eqx.training.throughput import SpeedMeter, Throughput

FINAL_EXAMPLES: Final = 1024  # of the evaluation at the end
STOPPING: Final = "stopping after this step; again to quit now"


def train(
    config: RunConfig,
    run_dir: Path,
    *,
    fresh: bool = False,
    tensorboard: bool = False,
    profile: ProfileWindow | None = None,
) -> int:
    """Train a model, or continue a run that was interrupted.

    Everything a run writes is in its folder: `config.toml`, `metrics.jsonl`,
    `samples.txt` and `checkpoints`. SIGINT or SIGTERM finishes the step, saves and
    returns; a second one ends the process at once. In a run of several processes each
    of them calls this function; process 0 reports and writes what people read.

    Args:
        config: The run.
        run_dir: Its folder.
        fresh: Move earlier results in the folder aside and start over.
        tensorboard: Mirror the metrics into TensorBoard events.
        profile: Steps to record into the folder `profile` of the run.

    Returns:
        The number of steps that the run has now.

    Raises:
        UserError: If the config, the data, the devices, the folder or its checkpoint
            cannot be used, or training diverges.
    """
    console = None if is_primary() else Console(quiet=True)
    with (
        TrainingDisplay(config.train.steps, console=console) as display,
        AgreedStop(lambda: display.message(STOPPING)) as stop,
    ):
        with display.phase("reading the data"):
            data = open_dataset(config)
        require_joined(config.distributed.num_processes)
        mesh = run_mesh(config)
        with RunFolder(run_dir) as folder:
            if not fresh:
                folder.check_names()
            elif config.train.init_from:
                check_source(config.train.init_from, folder.path)
            with display.phase("building the model"):
                context = TrainContext.build(config, data=data, mesh=mesh)
            moved = folder.start_fresh() if fresh else None
            with (
                Checkpoints(folder.checkpoints) as checkpoints,
                failures_say_what_is_kept(checkpoints.complete_steps),
            ):
                if moved is not None:
                    display.message(f"earlier results are now in {moved}")
                run = _Run(context, checkpoints, display, stop)
                run.resume()
                output = RunOutput(
                    folder,
                    config,
                    display,
                    first_step=run.step,
                    tensorboard=tensorboard,
                    profile=profile,
                )
                with contextlib.closing(output):
                    run.train(output)
                return run.step


class _Run:
    """A run in progress."""

    def __init__(
        self,
        context: TrainContext,
        checkpoints: Checkpoints,
        display: TrainingDisplay,
        stop: AgreedStop,
    ) -> None:
        self.config, self.data = context.config, context.data
        self.context = context
        self.checkpoints = checkpoints
        self.display = display
        self.stop = stop
        self.state: TrainState = context.state  # shapes, until it is read or drawn
        self.step = 0
        self.drawn: Future[TrainState] | None = None  # awaited by the first step
        self.programs = StepPrograms(context.train_step)
        self.eval_step = build_eval_step(
            context.static,
            context.mesh,
            functools.partial(
                batch_loss,
                block_len=self.config.train.loss_block,
                precision=self.config.train.precision,
            ),
        )
        self.pending: list[StepMetrics] = []  # of the steps since the last log line
        self.meter = SpeedMeter(Throughput.of(context.config, context.mesh))
        self.check_divergence = DivergenceCheck()

    def resume(self) -> None:
        """Continue from the latest good checkpoint, or draw the weights."""
        if not self.checkpoints.is_empty():
            _, saved = self.checkpoints.read_metadata()
            for change in check_resumable(self.config, self.data.fingerprints, saved):
                self.display.message(f"changed since the checkpoint: {change}")
            if line := ignored_start(self.config.train, saved_config(saved).train):
                self.display.message(line)
        restored = self.checkpoints.restore_latest(self.state.items())
        if restored is None:
            for line in run_summary(self.context):
                self.display.message(line)
            self.drawn = self.context.first_state()
            if source := self.config.train.init_from:
                tokenizer = self.data.fingerprints.get("tokenizer")
                with self.display.phase("drawing the weights"):
                    drawn, self.drawn = self.drawn.result(), None
                self.state, lines = start_from(drawn, source, self.config, tokenizer)
                for line in lines:
                    self.display.message(line)
            return
        for line in restored.refused:
            self.display.message(line)
        self.state, self.step = TrainState.from_items(restored.items), restored.step
        self.check_divergence = DivergenceCheck(int(self.state.skipped))
        self.display.message(f"continuing from step {self.step:,}")

    def train(self, output: RunOutput) -> None:
        """Run the remaining steps, then the last evaluation."""
        self.output = output
        settings = self.config.train
        if self.step == settings.steps and not output.has_evaluation(self.step):
            self.display.message("all steps are done, but not the last evaluation")
            output.open()
            self.finish()
            return
        if self.step >= settings.steps:
            self.display.message(
                f"nothing to do: the run has {self.step:,} of {settings.steps:,} "
                "steps. Raise train.steps, or start over with titans-train --fresh."
            )
            return
        if self.stop.is_due(self.step):
            self.display.message(
                f"stopped at step {self.step:,}, before another was begun"
            )
            return
        output.begin()
        sharding = batch_sharding(self.context.mesh)
        batches = self.data.batches.iterate(self.step, settings.steps)
        self.meter.restart()
        for local_batch in batches:
            batch = jax.tree.map(
                lambda x: jax.make_array_from_process_local_data(sharding, x),
                local_batch,
            )
            output.before_step(self.step + 1)
            self.state, step_metrics = self.take_step(batch)
            self.step += 1
            output.after_step(self.step, self.state)
            self.display.step(self.step)
            self.pending.append(step_metrics)
            self.meter.count(batch["inputs"].shape)
            is_last = self.step == settings.steps
            is_evaluated = self.is_due(settings.eval_every)
            is_logged = self.step == 1 or self.is_due(settings.log_every)
            if is_last or is_evaluated or is_logged:
                self.log(with_evaluation=is_evaluated and not is_last)
            if self.is_due(settings.sample_every) or (
                is_last and settings.sample_every
            ):
                self.sample()
            is_stopping = self.stop.is_due(self.step)
            if is_last or is_stopping or self.is_due(settings.checkpoint_every):
                self.save()
            if is_stopping and not is_last:
                if self.pending:  # or else they would be in no line, after a resume too
                    self.log(with_evaluation=False)
                self.checkpoints.wait()
                self.display.message(
                    f"stopped and saved at step {self.step:,}; the same command goes on"
                )
                return
        self.checkpoints.wait()
        self.finish()

    def take_step(self, batch: Batch) -> tuple[TrainState, StepMetrics]:
        """One step; the first with a batch of some shape is compiled."""
        if batch not in self.programs:
            with self.meter.paused(self.state), self.display.phase("compiling"):
                self.programs.compile(self.context.state, batch)
                if self.drawn is not None:
                    self.state, self.drawn = self.drawn.result(), None
        return self.programs(self.state, batch)

    def is_due(self, every: int) -> bool:
        """Whether something done every so many steps (0 = never) is due now."""
        return every > 0 and self.step % every == 0

    def log(self, *, with_evaluation: bool) -> None:
        """Report the steps since the last report."""
        self.checkpoints.check_save()
        pending = jax.device_get(self.pending)
        last = pending[-1]
        skipped = (int(metrics.skipped) for metrics in pending)
        self.check_divergence(self.step, skipped, self.checkpoints)
        loss = float(np.mean([m.loss for m in pending]))
        record: dict[str, int | float] = {"step": self.step, "loss": loss}
        if isinstance(self.data, TextData):
            record["bits_per_byte"] = self.data.train_corpus.bits_per_byte(loss)
        record |= {
            **self.meter.rates(),
            "gradient_norm": float(last.gradient_norm),
            "skipped_steps": int(last.skipped),
        }
        if self.config.optimizer.spike_sigmas > 0:
            record["spike_steps"] = int(last.spikes)
        if with_evaluation:
            examples = spread(self.data.eval_examples, self.config.train.eval_examples)
            record |= self.evaluate(examples)
        self.output.record(record)
        self.pending = []
        self.meter.restart()

    def evaluate(self, examples: list[Example]) -> dict[str, float]:
        """Scores of the model as it is now on data that is not trained on."""
        with self.display.phase("evaluating"):
            scores = evaluate(
                self.context, self.eval_step, self.state.evaluated(), examples
            )
        record = {"eval_loss": scores.loss, "eval_accuracy": scores.accuracy}
        return record | eval_bits_per_byte(self.data, examples, scores.loss)

    def sample(self) -> None:
        """Let the model continue a passage of the eval text."""
        if not isinstance(self.data, TextData) or self.data.tokenizer is None:
            return
        with self.meter.paused(self.state), self.display.phase("writing a sample"):
            text = write_sample(
                self.context, self.data, self.state.evaluated(), self.step
            )
            if text is not None:
                self.output.sample(self.step, text)

    def save(self) -> None:
        """Save a checkpoint in the background."""
        saved = metadata(self.config, self.data.fingerprints)
        with self.meter.paused(self.state):
            self.checkpoints.save(self.step, self.state.items(), saved)

    def finish(self) -> None:
        """The last evaluation, of consecutive examples: compressors need whole text."""
        count = min(FINAL_EXAMPLES, len(self.data.eval_examples))
        examples = [self.data.eval_examples[i] for i in range(count)]
        record = {"step": self.step} | self.evaluate(examples)
        self.output.record(record)
        for line in beside_compressors(self.data, examples, record):
            self.display.message(line)
