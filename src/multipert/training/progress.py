"""How far training is: a live bar on a terminal, a plain line now and then elsewhere, nothing when not asked."""

import sys
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

PLAIN_EVERY = 10.0
"""Seconds between two plain lines."""


class TrainingProgress:
    """Shows epochs done in the running stage, its losses and the time left, on standard error.

    Parameters
    ----------
    show
        Whether to show anything; by default only on a terminal.
    """

    def __init__(self, show: bool | None = None) -> None:
        console = Console(file=sys.stderr)
        self._bar: Progress | None = None
        if console.is_terminal and show is not False:
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[losses]}"),
                TimeRemainingColumn(),
                console=console,
            )
        self._plain = bool(show) and self._bar is None
        self._last = time.monotonic()

    def __enter__(self) -> Self:
        if self._bar:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar:
            self._bar.stop()

    def stage(self, name: str, epochs: int, done: Sequence[int]) -> None:
        """A stage of ``epochs`` begins, ``done`` of them behind each lane."""
        self._name, self._done = name if len(done) == 1 else f"{name} ({len(done)} fits)", list(done)
        self._epochs = epochs * len(done)
        if self._bar:
            self._task = self._bar.add_task(self._name, total=self._epochs, completed=sum(done), losses="")

    def epoch(self, lane: int, done: int, losses: Mapping[str, float]) -> None:
        """``done`` epochs of the stage are behind a lane."""
        self._done[lane] = done
        behind = sum(self._done)
        text = "  ".join(f"{name} {value:.4g}" for name, value in losses.items())
        if self._bar:
            self._bar.update(self._task, completed=behind, losses=text)
        elif self._plain and (behind == self._epochs or time.monotonic() - self._last > PLAIN_EVERY):
            self._last = time.monotonic()
            print(f"{self._name}: epoch {behind}/{self._epochs}  {text}", file=sys.stderr, flush=True)
