"""``multipert report``: a page on how well a run predicts the context that was held out from it."""

import sys
from pathlib import Path
from typing import Annotated

import typer


def report(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Run folder of a fit with --hold-out.")],
    data: Annotated[Path, typer.Option("--data", metavar="DATA.h5ad", help="The cells it was fitted to.")],
    out: Annotated[Path, typer.Option("--out", metavar="REPORT.html", help="Where the page goes.")],
) -> None:
    """Predict and score the held-out context, and draw one self-contained page."""
    from multipert.benchmark import run_held_out_test
    from multipert.data import check_writable, write_text
    from multipert.models import load
    from multipert.report import run_page

    check_writable(out)
    model = load(folder)
    cells, split = model.training_data(data)
    test = run_held_out_test(model, cells, split, announce=lambda line: print(line, file=sys.stderr))
    write_text(out, run_page(test))
    print(f"report: {out.resolve()}")
