"""``multipert check``: what the data can tell, before anything is trained."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from multipert.cli.keys import Compound, ContextKey, Control, CovariateKey, DoseKey, Layer, PerturbationKey

if TYPE_CHECKING:
    from multipert.evaluation import DataCheck

Data = Annotated[Path, typer.Argument(metavar="DATA", help="Log-normalised cells, h5ad or zarr.", show_default=False)]

_COLOURS = {"can be predicted": "green", "differs by context": "yellow", "too weak": "red", "too little data": "red"}


def check(
    data: Data,
    context_key: ContextKey,
    perturbation_key: PerturbationKey = None,
    control: Control = None,
    dose_key: DoseKey = None,
    compound: Compound = None,
    covariate_key: CovariateKey = None,
    layer: Layer = None,
    out: Annotated[Path | None, typer.Option("--out", metavar="PAGE.html", help="Where a page of it goes.")] = None,
    seed: Annotated[int, typer.Option(help="Of the halves that cells are split into.")] = 0,
) -> None:
    """Say which responses are there to be predicted, which carry over between contexts, and what is amiss."""
    from multipert.data import Keys, check_ending, check_writable, write_text
    from multipert.evaluation import check

    if out is not None:
        check_ending(out, [".html"])
        check_writable(out, inputs=[data])
    keys = Keys(
        perturbation_key=perturbation_key,
        control=control,
        context_key=context_key,
        dose_key=dose_key,
        compound=compound,
        covariate_key=covariate_key or None,
        layer=layer,
    )
    found = check(data, keys, seed=seed)
    _print(found)
    if out is not None:
        from multipert.report import check_page

        write_text(out, check_page(found))
        print(f"page: {out.resolve()}")


def _print(found: "DataCheck") -> None:
    from multipert.cli.tables import number, standard_output
    from multipert.evaluation.responses import each_response

    terminal = standard_output()
    table = Table("context", "perturbation", box=None, pad_edge=False)
    columns = ("cells", "controls", "depth_ratio", "reproducibility", "others", "size", "noise", "genes")
    for column in columns:
        table.add_column(column.replace("_", " "), justify="right")
    table.add_column("")
    for (context, perturbation), row in each_response(found.groups):
        status = row["status"]
        values = [number(round(row[column], 3)) for column in columns]
        table.add_row(escape(context), escape(perturbation), *values, f"[{_COLOURS[status]}]{status}[/]")
    terminal.print(table)
    terminal.print(
        "reproducibility: correlation of the response in two halves, each with its own controls.  others: with the "
        "mean response of all other contexts.\nsize, noise: length of the response beyond noise, and of the noise.  "
        "genes: that respond (Wilcoxon, false discovery rate 5 %).",
        style="dim",
    )
    if len(found.metrics):
        silent = [str(name) for name in found.metrics.index[~found.metrics["can_tell"]]]
        few = ", ".join(silent) if len(silent) < len(found.metrics) else "all"
        terminal.print(f"\nmetrics that cannot tell a replicate from a guess here: {few or 'none'}", soft_wrap=True)
    for finding in found.findings:
        terminal.print(f"\n{finding.severity}: {escape(finding.what)}\n  {escape(finding.remedy)}", soft_wrap=True)
    terminal.print()
    for sentence in found.verdict:
        terminal.print(escape(sentence), style="bold", soft_wrap=True)
