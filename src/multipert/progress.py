"""How far a long job is: a live bar on a terminal, a plain line now and then elsewhere, on standard error."""

import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress

PLAIN_EVERY = 10.0
"""Seconds between two plain lines."""

Amount = Callable[[int, int | None], str]
"""Says how much is done of how much; of what is not known, none."""


class Progress:
    """One display of one job, for training, benchmarks and downloads alike.

    Parameters
    ----------
    show
        Whether to show anything; by default only on a terminal.
    amount
        Says how much is done, such as ``epoch 3/60``.
    every
        Seconds between two plain lines off a terminal; what is finished is always said.
    """

    def __init__(
        self,
        show: bool | None = None,
        *,
        amount: Amount = lambda done, total: f"{done}/{total}",
        every: float = PLAIN_EVERY,
    ) -> None:
        self._amount, self._every = amount, every
        terminal = sys.stderr.isatty()
        self._plain = bool(show) and not terminal
        self._bar = _bar() if terminal and show is not False else None
        self._name, self._done, self._note = "", 0, ""
        self._total: int | None = None
        self._said: tuple[str, int] | None = None
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
        elif self._plain and self._name:
            self._print()

    def begin(self, name: str, total: int | None, done: int = 0) -> None:
        """A part of the job begins: what it is called, how much there is to do, where known, and how much is done."""
        self._name, self._total, self._done, self._note = name, total, done, ""
        if self._bar:
            self._task = self._bar.add_task(
                name, total=total, completed=done, amount=self._amount(done, total), note=""
            )

    def update(self, done: int, note: str = "", *, line: str | None = None) -> None:
        """So much of the part is done.

        Parameters
        ----------
        done
            How much, of its total.
        note
            What else there is to say, such as the losses.
        line
            What to print off a terminal in place of the usual line, and at once.
        """
        self._done, self._note = done, note
        if self._bar:
            self._bar.update(self._task, completed=done, amount=self._amount(done, self._total), note=note)
        elif self._plain and line is not None:
            self._said = self._name, done
            self.say(line)
        elif self._plain and (done == self._total or time.monotonic() - self._last > self._every):
            self._print()

    def say(self, line: str) -> None:
        """Print a line beside the bar."""
        if self._bar:
            self._bar.console.print(line, markup=False, highlight=False)
        else:
            print(line, file=sys.stderr, flush=True)

    def _print(self) -> None:
        """The usual line, unless it was said already."""
        self._last = time.monotonic()
        if self._said != (self._name, self._done):
            self._said = self._name, self._done
            self.say(f"{self._name}: {self._amount(self._done, self._total)}  {self._note}".rstrip())


def _bar() -> RichProgress:
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[amount]}"))
    return RichProgress(
        *columns, TextColumn("{task.fields[note]}"), TimeRemainingColumn(), console=Console(file=sys.stderr)
    )
