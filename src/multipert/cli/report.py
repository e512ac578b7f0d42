"""``multipert report``: what a study found, or how well one run predicts the context held out from it."""

import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from multipert.errors import InputError

if TYPE_CHECKING:
    from multipert.benchmark import StudyResults


class Format(StrEnum):
    """What a report comes as."""

    HTML = "html"
    MD = "md"
    CSV = "csv"
    LATEX = "latex"
    RUNS = "runs"


ENDINGS = {
    Format.HTML: [".html"],
    Format.MD: [".md"],
    Format.CSV: [".csv"],
    Format.LATEX: [".tex", ".latex"],
}
"""What a report of a format may be called."""


def report(
    folder: Annotated[
        Path,
        typer.Argument(metavar="DIR", help="Directory of a benchmark or a search, or run folder."),
    ],
    out: Annotated[Path, typer.Option("--out", metavar="REPORT", help="Where the page or table goes.")],
    format_: Annotated[
        Format, typer.Option("--format", help="A page, its tables for a paper, or each trial beside the published run.")
    ] = Format.HTML,
    data: Annotated[
        Path | None, typer.Option("--data", metavar="DATA.h5ad", help="The cells a run was fitted to.")
    ] = None,
) -> None:
    """Draw one self-contained page of a benchmark, a search or a run, or print its tables for a paper."""
    from multipert.benchmark import is_benchmark, is_search, load_results, load_search
    from multipert.data import check_ending, check_writable, write_text
    from multipert.report import search_page, study_page, study_table

    if format_ in ENDINGS:
        check_ending(out, ENDINGS[format_])
    check_writable(out, inputs=[] if data is None else [data])
    if is_search(folder):
        if format_ is not Format.HTML or data is not None:
            raise InputError(
                f"{folder} is the folder of a search, which has a page alone: leave out --format and --data"
            )
        write_text(out, search_page(load_search(folder)))
        print(f"report: {out.resolve()}")
        return
    if not is_benchmark(folder):
        results = _results_of_run(folder, data)
    elif data is None:
        results = load_results(folder)
    else:
        raise InputError(f"{folder} is a benchmark directory and holds all a report needs: leave out --data")
    write_text(out, study_page(results) if format_ is Format.HTML else study_table(results, format_.value))
    print(f"report: {out.resolve()}")


def _results_of_run(folder: Path, data: Path | None) -> "StudyResults":
    from multipert.benchmark import results_of_run
    from multipert.models import load

    model = load(folder)
    if data is None:
        raise InputError(f"{folder} is one run: give the cells it was fitted to with --data DATA.h5ad")
    cells, split = model.training_data(data)
    return results_of_run(
        model, cells, split, name=data.stem, source=data.name, announce=lambda line: print(line, file=sys.stderr)
    )
