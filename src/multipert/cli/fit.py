"""``multipert fit``: train a model on an h5ad file."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from multipert.cli.keys import (
    Compound,
    ContextKey,
    Control,
    CountsLayer,
    CovariateKey,
    DoseKey,
    Features,
    HoldOut,
    HoldOutCovariate,
    Layer,
    OnDisk,
    PerturbationKey,
)
from multipert.errors import InputError

if TYPE_CHECKING:
    from multipert.training import Precision

Data = Annotated[Path, typer.Argument(metavar="DATA", help="Log-normalised cells, h5ad or zarr.", show_default=False)]


def fit(
    data: Data,
    context_key: ContextKey,
    out: Annotated[Path, typer.Option("--out", metavar="RUN", help="Folder for the run; a stopped one goes on there.")],
    model: Annotated[str, typer.Option("--model", metavar="NAME", help="See `multipert models`.")] = "mtcell",
    perturbation_key: PerturbationKey = None,
    control: Control = None,
    dose_key: DoseKey = None,
    compound: Compound = None,
    covariate_key: CovariateKey = None,
    layer: Layer = None,
    counts_layer: CountsLayer = None,
    hold_out: HoldOut = None,
    hold_out_covariate: HoldOutCovariate = None,
    features: Features = None,
    on_disk: OnDisk = None,
    preset: Annotated[
        str, typer.Option(help="Named set of values: default, study, or a file as `multipert tune` writes.")
    ] = "default",
    epochs: Annotated[int | None, typer.Option(help="Passes over the training cells.", show_default=False)] = None,
    seed: Annotated[int, typer.Option(help="Of everything random.")] = 1,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="A parameter, such as --set latent=64; repeatable. See `multipert models NAME`.",
        ),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 (the second GPU) or mps.")] = "auto",
    precision: Annotated[
        str, typer.Option(help="Of the largest products in training: auto, float32 or bfloat16.")
    ] = "auto",
    tensorboard: Annotated[bool, typer.Option("--tensorboard", help="Write TensorBoard curves too.")] = False,
) -> None:
    """Train a model; with --hold-out, on all cells but the perturbed ones of one context."""
    from multipert.data import PerturbationData, check_source, leave_context_out, leave_covariate_out
    from multipert.models import create
    from multipert.training import Interrupted

    shorthand = {} if epochs is None else {"epochs": epochs}
    chosen = create(model, preset=preset, seed=seed, **(shorthand | _changes(set_ or [])))
    if features is not None:
        check_source(features)
    cells = PerturbationData.from_anndata(
        data,
        perturbation_key=perturbation_key,
        control=control,
        context_key=context_key,
        dose_key=dose_key,
        compound=compound,
        covariate_key=covariate_key or None,
        layer=layer,
        counts_layer=counts_layer,
        on_disk=on_disk,
    )
    print(cells)
    split = None
    if hold_out_covariate is not None:
        split = leave_covariate_out(cells, hold_out_covariate, context=hold_out)
    elif hold_out is not None:
        split = leave_context_out(cells, hold_out)
    try:
        chosen.fit(
            cells,
            split,
            features=features,
            run=out,
            device=device,
            precision=cast("Precision", precision),  # an unknown one is refused by name
            progress=True,
            tensorboard=tensorboard,
        )
    except Interrupted:
        print(f"\nstopped; checkpoint in {out}: the same command goes on from there.", file=sys.stderr)
        raise typer.Exit(1) from None
    print(f"{chosen!r}: {chosen.n_parameters:,} parameters, {chosen.seconds_fit_:.1f} s; written to {out}")


def _changes(pairs: list[str]) -> dict[str, str]:
    """``key=value`` texts as a mapping."""
    split = [pair.partition("=") for pair in pairs]
    for key, sign, _ in split:
        if not key or not sign:
            raise InputError(f"--set takes key=value, not {key!r}: for instance --set latent=64")
    return {key.strip().replace("-", "_"): value for key, _, value in split}
