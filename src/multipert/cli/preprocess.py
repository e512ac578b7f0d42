"""``multipert preprocess``: log-normalised cells from raw counts."""

from pathlib import Path
from typing import Annotated, Any

import typer

from multipert.cli.keys import (
    ContextKey,
    Control,
    CovariateKey,
    DoseKey,
    HoldOut,
    HoldOutCovariate,
    MissingGenes,
    OnDisk,
    PerturbationKey,
)
from multipert.errors import InputError


def preprocess(
    counts: Annotated[Path, typer.Argument(metavar="COUNTS", help="Raw counts, h5ad or zarr.", show_default=False)],
    out: Annotated[
        Path, typer.Option("--out", metavar="DATA", help="Where the log-normalised cells go, h5ad or zarr.")
    ],
    layer: Annotated[str | None, typer.Option(metavar="NAME", help="Layer that holds the counts.")] = None,
    like: Annotated[
        Path | None,
        typer.Option("--like", metavar="RUN", help="Make the cells what the training cells of this run are."),
    ] = None,
    min_counts: Annotated[
        int | None, typer.Option(help="Drop cells with fewer counts: 500, or less for a panel of genes.")
    ] = None,
    min_genes: Annotated[
        int | None, typer.Option(help="Drop cells with fewer expressed genes: 720, or less for a panel.")
    ] = None,
    min_cells: Annotated[
        int | None, typer.Option(help="Drop genes seen in fewer cells: 1 %, between 3 and 100.")
    ] = None,
    genes: Annotated[int, typer.Option(help="Keep this many of the most variable genes; 0 keeps all.")] = 5000,
    missing_genes: MissingGenes = "error",
    hold_out: HoldOut = None,
    hold_out_covariate: HoldOutCovariate = None,
    perturbation_key: PerturbationKey = None,
    control: Control = None,
    context_key: ContextKey = [],  # noqa: B006 (Typer reads it)
    dose_key: DoseKey = None,
    covariate_key: CovariateKey = None,
    on_disk: OnDisk = None,
) -> None:
    """Filter cells and genes, normalise to the median total, log1p, keep the most variable genes.

    With --hold-out, genes and scale are chosen without the held-out cells; the keys say which these are.
    """
    from multipert.data import (
        ENDINGS,
        HeldOut,
        Keys,
        check_ending,
        check_writable,
        preprocess_to,
        read_cells,
        training_mask,
    )

    check_ending(out, ENDINGS)
    check_writable(out, inputs=[counts])
    limits: dict[str, Any] = {"min_counts": min_counts, "min_genes": min_genes}
    if like is not None:
        from multipert.models import load

        if hold_out is not None or hold_out_covariate is not None or min_cells is not None:
            raise InputError("--like keeps the genes of the run: leave out --min-cells and --hold-out")
        options = limits | {"like": load(like).metadata_.space, "missing_genes": missing_genes}
        cells = read_cells(counts, on_disk=on_disk)
    else:
        cells = read_cells(counts, on_disk=on_disk)
        options = limits | {"min_cells": min_cells, "n_top_genes": genes or None}
        if hold_out is not None or hold_out_covariate is not None:
            keys = Keys(
                perturbation_key=perturbation_key,
                control=control,
                context_key=context_key,
                dose_key=dose_key,
                covariate_key=covariate_key or None,
            )
            rule = HeldOut("context and covariate", context=hold_out, covariate=hold_out_covariate)
            options["choose_on"] = training_mask(cells, keys, rule)
    done = preprocess_to(out, cells, layer=layer, on_disk=on_disk, **options)
    print(f"{_steps(done)}; written to {out}")


def _steps(done: dict[str, Any]) -> str:
    """What each step left, and a sentence on what is left of all."""
    steps = done["steps"]
    width = max(map(len, steps.index))
    lines = [f"{'':{width}}  {'cells':>9}  {'genes':>7}"]
    lines += [f"{step:{width}}  {cells:9,}  {genes:7,}" for step, (cells, genes) in steps.iterrows()]
    lines.append(f"every cell scaled to a total of {done['target_sum']:.6g}, then log1p")
    (cells, genes), (all_cells, all_genes) = steps.iloc[-1], steps.iloc[0]
    lines.append(f"{cells:,} of {all_cells:,} cells, {genes:,} of {all_genes:,} genes")
    return "\n".join(lines)
