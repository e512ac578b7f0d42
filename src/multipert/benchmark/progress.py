"""How far a benchmark is: a live line on a terminal, a plain line for each trial elsewhere."""

import sys
import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from multipert.benchmark.jobs import Job, TrialJob
from multipert.benchmark.records import Record, TrialResult


class BenchmarkProgress:
    """Shows trials done, failed and running, and the time left, on standard error.

    Parameters
    ----------
    jobs
        What is to be done.
    workers
        How many jobs run at a time.
    """

    def __init__(self, jobs: int, trials: int, workers: int) -> None:
        self.jobs, self.workers = jobs, workers
        self.finished = self.failed = 0
        self.started = time.monotonic()
        self.trials = trials
        self.trials_done = 0
        console = Console(file=sys.stderr)
        self._bar: Progress | None = None
        if console.is_terminal:
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[state]}"),
                console=console,
            )

    def __enter__(self) -> Self:
        if self._bar:
            self._bar.start()
            self._task = self._bar.add_task("trials", total=self.trials, state="")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar:
            self._bar.stop()

    def done(self, job: Job, record: Record | None) -> None:
        """A job has ended; without a record where it has none to leave."""
        self.finished += 1
        failed = record is None or (isinstance(record, TrialResult) and record.status == "failed")
        self.failed += failed
        self.trials_done += isinstance(job, TrialJob)
        running = min(self.workers, self.jobs - self.finished)
        elapsed = time.monotonic() - self.started
        left = elapsed / self.finished * (self.jobs - self.finished)
        state = f"{self.failed} failed, {running} running, about {duration(left)} left"
        if self._bar:
            self._bar.update(self._task, completed=self.trials_done, state=state)
        elif isinstance(record, TrialResult):
            how = record.error if record.status == "failed" else f"{record.seconds_fit:.1f} s"
            print(
                f"[{self.trials_done}/{self.trials}] {record.dataset}: {record.label}, {record.held_out} held out, "
                f"seed {record.seed}: {how}; {state}",
                file=sys.stderr,
                flush=True,
            )

    def say(self, line: str) -> None:
        """Print a line beside the bar."""
        if self._bar:
            self._bar.console.print(line, markup=False, highlight=False)
        else:
            print(line, file=sys.stderr, flush=True)


def duration(seconds: float) -> str:
    """A time as a reader says it: ``40 s``, ``12 min``, ``3.5 h``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 90 * 60 else f"{seconds / 3600:.1f} h"
