"""``multipert preprocess``: log-normalised cells from raw counts."""

from pathlib import Path
from typing import Annotated

import typer

from multipert.cli.keys import ContextKey, Control, DoseKey, PerturbationKey
from multipert.errors import InputError


def preprocess(
    counts: Annotated[Path, typer.Argument(metavar="COUNTS.h5ad", help="Raw counts.", show_default=False)],
    out: Annotated[Path, typer.Option("--out", metavar="DATA.h5ad", help="Where the log-normalised cells go.")],
    layer: Annotated[str | None, typer.Option(metavar="NAME", help="Layer that holds the counts.")] = None,
    min_counts: Annotated[int, typer.Option(help="Drop cells with fewer counts.")] = 500,
    min_genes: Annotated[int, typer.Option(help="Drop cells with fewer expressed genes.")] = 720,
    min_cells: Annotated[int, typer.Option(help="Drop genes seen in fewer cells.")] = 100,
    genes: Annotated[int, typer.Option(help="Keep this many of the most variable genes; 0 keeps all.")] = 5000,
    hold_out: Annotated[
        str | None,
        typer.Option(
            metavar="CONTEXT",
            help="Choose variable genes without its perturbed cells; needs the keys below.",
        ),
    ] = None,
    perturbation_key: PerturbationKey = None,
    control: Control = None,
    context_key: ContextKey = [],  # noqa: B006 (Typer reads it)
    dose_key: DoseKey = None,
) -> None:
    """Filter cells and genes, normalise to the median total, log1p, keep the most variable genes."""
    from multipert.data import Keys, check_writable, read_h5ad, training_mask, write_h5ad
    from multipert.data import preprocess as preprocess_counts

    check_writable(out)
    cells = read_h5ad(counts)
    choose_on = None
    if hold_out is not None:
        if not context_key:
            raise InputError("--hold-out names a context: say with --context-key which column of obs holds contexts")
        keys = Keys(perturbation_key=perturbation_key, control=control, context_key=context_key, dose_key=dose_key)
        choose_on = training_mask(cells, keys, hold_out)
    processed = preprocess_counts(
        cells,
        min_counts=min_counts,
        min_genes=min_genes,
        min_cells=min_cells,
        n_top_genes=genes or None,
        layer=layer,
        choose_on=choose_on,
    )
    write_h5ad(processed, out)
    kept = f"{processed.n_obs:,} of {cells.n_obs:,} cells, {processed.n_vars:,} of {cells.n_vars:,} genes"
    print(f"{kept}; written to {out}")
