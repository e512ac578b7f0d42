"""``multipert report``: what a study found, or how well one run predicts the context held out from it."""

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from multipert.errors import InputError


class Format(StrEnum):
    """What a report comes as."""

    HTML = "html"
    MD = "md"
    CSV = "csv"
    LATEX = "latex"


def report(
    folder: Annotated[
        Path,
        typer.Argument(metavar="DIR", help="Directory of a benchmark, or run folder of a fit with --hold-out."),
    ],
    out: Annotated[Path, typer.Option("--out", metavar="REPORT", help="Where the page or table goes.")],
    format_: Annotated[
        Format, typer.Option("--format", help="A page, or of a benchmark its tables for a paper.")
    ] = Format.HTML,
    data: Annotated[
        Path | None, typer.Option("--data", metavar="DATA.h5ad", help="The cells a run was fitted to.")
    ] = None,
) -> None:
    """Draw one self-contained page of a benchmark or a run, or print a benchmark's tables for a paper."""
    from multipert.benchmark import is_benchmark, load_results
    from multipert.data import check_writable, write_text
    from multipert.report import study_page, study_table

    check_writable(out)
    if is_benchmark(folder):
        if data is not None:
            raise InputError(f"{folder} is a benchmark directory and holds all a report needs: leave out --data")
        results = load_results(folder)
        write_text(out, study_page(results) if format_ == "html" else study_table(results, format_.value))
    else:
        write_text(out, _page_of_run(folder, data, format_))
    print(f"report: {out.resolve()}")


def _page_of_run(folder: Path, data: Path | None, format_: Format) -> str:
    from multipert.benchmark import run_held_out_test
    from multipert.models import load
    from multipert.report import run_page

    model = load(folder)
    if format_ is not Format.HTML:
        raise InputError(f"{folder} is one run: --format {format_.value} makes tables of a benchmark directory")
    if data is None:
        raise InputError(f"{folder} is one run: give the cells it was fitted to with --data DATA.h5ad")
    cells, split = model.training_data(data)
    return run_page(run_held_out_test(model, cells, split, announce=lambda line: print(line, file=sys.stderr)))
