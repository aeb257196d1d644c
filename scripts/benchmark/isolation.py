"""Each case in a process of its own, so that its peak memory is its own too."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Final

from rich.console import Console
from rich.status import Status

from scripts.benchmark.case import Case
from scripts.benchmark.timing import by_turns
from titans_eqx.commands.huge_pages import with_huge_pages
from titans_eqx.errors import UserError

OURS: Final = (sys.executable, "-m", "scripts.benchmark.worker")
EXIT_TIMEOUT: Final = 10  # seconds


class BenchmarkError(UserError):
    """A case cannot be measured; the message is one line."""


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """What was measured of a case."""

    case: Case
    facts: dict[str, Any]  # what the worker built, and where
    runs: tuple[float, ...]  # seconds of each run
    peak_mib: float  # of the worker's whole life, compilation included
    running_mib: float | None  # of the timed runs only; None where that is unknown

    @property
    def seconds(self) -> float:
        """Median over the runs."""
        return median(self.runs)

    @property
    def tokens_per_second(self) -> float:
        """Tokens read (or drawn) over seconds."""
        return self.facts["tokens"] / self.seconds

    @property
    def columns(self) -> dict[str, Any]:
        """Time, speed and memory, as every command reports them."""
        return {
            "seconds": self.seconds,
            "tokens_per_second": self.tokens_per_second,
            "peak_mib": self.peak_mib,
            "running_mib": self.running_mib,
            "runs": list(self.runs),
        }


class Worker(AbstractContextManager["Worker"]):
    """A child process that has built a case and waits for what to do with it."""

    def __init__(
        self, case: Case, *, command: Sequence[str] = OURS, platform: str = ""
    ) -> None:
        """Start the process and wait until its case is built and compiled.

        Args:
            case: What it measures.
            command: The program that answers; see `serving`.
            platform: Where it has to run, such as "cpu"; for other interpreters, which
                might choose another place than ours.

        Raises:
            BenchmarkError: If the process cannot be started, or refuses the case.
        """
        self.case = case
        self._name = f"{case.kind} at length {case.length:,}"
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                start_new_session=True,  # Ctrl-C reaches only us, and we terminate it
                env=_environment(),
            )
        except OSError as error:
            raise BenchmarkError(
                f"cannot run {command[0]}: {error.strerror or error}."
            ) from error
        try:
            message = {"case": case.model_dump(mode="json"), "platform": platform}
            self.facts = self._ask(message)
        except BaseException:
            self.close()
            raise

    def __exit__(self, *error: object) -> None:
        """Terminate the process."""
        self.close()

    def run(self) -> float:
        """Seconds of one run of the case."""
        return self.number("run")

    def run_warm(self) -> float:
        """`run`, right after another one."""
        self.run()
        return self.run()

    def number(self, task: str) -> float:
        """The result of one of the tasks that the process knows."""
        return float(self._ask({"do": task})["value"])

    def measured(self, runs: tuple[float, ...]) -> Measurement:
        """What was measured so far, given the seconds of each run."""
        return Measurement(
            case=self.case,
            facts=self.facts,
            runs=runs,
            peak_mib=self.number("peak"),
            running_mib=self._ask({"do": "running peak"})["value"],
        )

    def close(self) -> None:
        """Terminate the process; it has nothing to save."""
        self._process.kill()
        self._process.communicate()

    def _ask(self, message: dict[str, Any]) -> dict[str, Any]:
        questions, answers = self._process.stdin, self._process.stdout
        assert questions is not None
        assert answers is not None
        try:
            print(json.dumps(message), file=questions, flush=True)
            line = answers.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise self._death()
        answer = json.loads(line)
        if "error" in answer:
            raise BenchmarkError(answer["error"])
        return answer

    def _death(self) -> BenchmarkError:
        code = self._process.wait(EXIT_TIMEOUT)
        if code < 0:
            return BenchmarkError(
                f"{self._name}: the process was killed by signal {-code}, most likely "
                "because memory ran out; use a smaller length."
            )
        return BenchmarkError(
            f"{self._name}: the process ended with exit code {code}; its own message "
            "is above."
        )


def measure(cases: Sequence[Case], repeats: int) -> list[Measurement]:
    """Measure cases that are to be compared: all are built, then they run by turns.

    Args:
        cases: The cases.
        repeats: How often each runs, after a first run that is left out.
    """
    with ExitStack() as stack:
        workers = []
        for case in cases:
            with working_on(case):
                workers.append(stack.enter_context(Worker(case)))
        with working_on(*cases):
            return measure_workers(workers, repeats)


def measure_each(cases: Sequence[Case], repeats: int) -> list[Measurement]:
    """Measure cases one after the other, so that one at a time needs memory."""
    return [measure([case], repeats)[0] for case in cases]


def measure_workers(workers: Sequence[Worker], repeats: int) -> list[Measurement]:
    """`measure` for processes that are running already.

    Where several take turns, each turn begins with a run that is left out: the kernel,
    or the host of a virtual machine, takes back memory that a waiting process has
    freed, and the first run after it pays for that.
    """
    runs = by_turns(
        [worker.run if len(workers) == 1 else worker.run_warm for worker in workers],
        repeats,
    )
    return [
        worker.measured(seconds) for worker, seconds in zip(workers, runs, strict=True)
    ]


def working_on(*cases: Case) -> Status:
    """A context that shows on a terminal what is being measured."""
    names = " and ".join(
        f"{case.kind}, {case.config.model.pattern}, {case.length:,} tokens"
        for case in cases
    )
    return Console(stderr=True).status(names)


def _environment() -> dict[str, str]:
    root = str(Path(__file__).parents[2])
    paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
    return with_huge_pages(os.environ) | {
        "PYTHONPATH": os.pathsep.join(paths),
        # Several workers share an accelerator, and its peak memory should be what was
        # needed.
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
        # The folder of a script that is run by its path must not hide other modules.
        "PYTHONSAFEPATH": "1",
    }
