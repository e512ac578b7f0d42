"""The ``multipert`` command: its subcommands, and what becomes of errors."""

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import typer
from rich.console import Console

from multipert import __version__
from multipert.cli import (
    benchmark,
    check,
    datasets,
    demo,
    dose_response,
    evaluate,
    explain,
    fit,
    metrics,
    models,
    predict,
    preprocess,
    rank,
    report,
    tune,
)
from multipert.errors import InputError, InputWarning, is_disk_full
from multipert.process import own_process

STOPPED = 130
"""What Typer makes of Ctrl-C; ours are 0, 1 and 2."""

WORDS = """\b
Words:
  context      what is predicted unseen: a cell type, species, patient, cell line
  condition    control, or a perturbation (NAME@DOSE where there are doses)
  held out     hidden from training; the truth that a prediction is scored against
  covariate    a donor or batch, within which cells are compared with controls
  log-normalised  counts scaled to one total a cell, then log1p (preprocess)
  trial        one data set, model, held-out context and seed; a study is a list
  floor        the score of predicting no change
  ceiling      the score of a replicate: one half of the true cells as prediction
  preset       named values of a model's parameters: default, or study (published)
"""
"""Ends the help: the words that options use."""

app = typer.Typer(
    name="multipert",
    epilog=WORDS,
    help="Predict how single cells respond to perturbations in contexts where it was never measured, "
    "and say honestly how good the prediction is.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command("demo")(demo.demo)
app.command("preprocess")(preprocess.preprocess)
app.command("check")(check.check)
app.command("fit")(fit.fit)
app.command("predict")(predict.predict)
app.command("explain")(explain.explain)
app.command("rank")(rank.rank)
app.command("dose-response")(dose_response.dose_response)
app.command("evaluate")(evaluate.evaluate)
app.command("benchmark")(benchmark.benchmark)
app.command("tune")(tune.tune)
app.command("report")(report.report)
app.command("models")(models.models)
app.command("metrics")(metrics.metrics)
app.add_typer(datasets.app, name="datasets")


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"multipert {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: bool = typer.Option(False, "--version", callback=_show_version, is_eager=True, help="Print the version."),
) -> None:
    """Options of the command itself."""


@contextmanager
def _notes(console: Console) -> Iterator[None]:
    """Print what the user should know of the input as a line of its own; other warnings as ever."""
    with warnings.catch_warnings():
        warnings.simplefilter("always", InputWarning)
        show = warnings.showwarning

        def say(message: Warning | str, category: type[Warning], *place: Any, **rest: Any) -> None:
            if issubclass(category, InputWarning):
                console.print(f"multipert: note: {message}", style="yellow")
            else:
                show(message, category, *place, **rest)

        warnings.showwarning = say
        yield


def main() -> None:
    """Run the command line: exit code 0, 1 (failed, or stopped by Ctrl-C) or 2 (bad input, one clear line)."""
    own_process()
    console = Console(stderr=True, soft_wrap=True, markup=False, highlight=False)
    try:
        with _notes(console):
            app()
    except SystemExit as end:
        if end.code == STOPPED:
            sys.exit(1)
        raise
    except InputError as error:
        console.print(f"multipert: {error}", style="red")
        sys.exit(2)
    except Exception as error:
        if is_disk_full(error):
            console.print(
                "multipert: the disk is full: make room, or choose another folder, and run again", style="red"
            )
            sys.exit(1)
        console.print_exception(show_locals=False)
        console.print(f"multipert: failed with {type(error).__name__}: {error}", style="red")
        sys.exit(1)
