"""How far a benchmark is: trials done, failed and running, and the time left."""

import time
from math import isnan
from types import TracebackType
from typing import Self

from multipert.benchmark.jobs import Job, TrialJob
from multipert.benchmark.records import Record, TrialResult
from multipert.progress import Progress


class BenchmarkProgress:
    """Counts the jobs of a benchmark as they end; a line for each trial off a terminal.

    Parameters
    ----------
    jobs, trials
        How many jobs there are, and how many of them are trials.
    workers
        How many jobs run at a time.
    """

    def __init__(self, jobs: int, trials: int, workers: int) -> None:
        self.jobs, self.trials, self.workers = jobs, trials, workers
        self.finished = self.failed = self.trials_done = 0
        self.started = time.monotonic()
        self._shown = Progress(True)

    def __enter__(self) -> Self:
        self._shown.__enter__()
        if self.trials:
            self._shown.begin("trials", self.trials)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._shown.__exit__(kind, error, trace)

    def done(self, job: Job, record: Record | None) -> None:
        """A job has ended; without a record where it has none to leave."""
        self.finished += 1
        self.failed += record is None or (isinstance(record, TrialResult) and record.status == "failed")
        self.trials_done += isinstance(job, TrialJob)
        running = min(self.workers, self.jobs - self.finished)
        left = (time.monotonic() - self.started) / self.finished * (self.jobs - self.finished)
        state = f"{self.failed} failed, {running} running, about {duration(left)} left"
        if isinstance(record, TrialResult):
            took = "scored" if isnan(record.seconds_fit) else f"{record.seconds_fit:.1f} s"
            how = record.error if record.status == "failed" else took
            trial = f"{record.dataset}: {record.label}, {record.held_out} held out, seed {record.seed}"
            self._shown.update(
                self.trials_done, state, line=f"[{self.trials_done}/{self.trials}] {trial}: {how}; {state}"
            )

    def say(self, line: str) -> None:
        """Print a line beside the bar."""
        self._shown.say(line)


def duration(seconds: float) -> str:
    """A time as a reader says it: ``40 s``, ``12 min``, ``3.5 h``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 90 * 60 else f"{seconds / 3600:.1f} h"
