"""``multipert tune``: search a model's parameters without a look at what a study holds out."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from multipert.cli.keys import Scheduler, Workers, check_workers


def tune(
    study: Annotated[Path, typer.Argument(metavar="STUDY.toml", help="The study file.", show_default=False)],
    model: Annotated[str, typer.Option("--model", metavar="NAME", help="A model of the study by its label, or any.")],
    trials: Annotated[int, typer.Option("--trials", metavar="N", help="How many there shall be in all.")],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder of the search; it goes on there.")],
    metric: Annotated[str, typer.Option(help="What to make the most of; see `multipert metrics`.")] = "edist",
    inner: Annotated[
        int | None,
        typer.Option(metavar="N", help="Hold out only the N largest inner contexts of a data set.", show_default=False),
    ] = None,
    workers: Workers = 1,
    scheduler: Scheduler = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
) -> None:
    """Search a model's parameters on the training contexts of a study; what it holds out is never read."""
    from multipert.benchmark import tune

    check_workers(workers, scheduler)
    try:
        found = tune(
            study,
            model,
            trials=trials,
            out=out,
            metric=metric,
            inner=inner,
            workers=workers,
            scheduler=scheduler,
            device=device,
            announce=lambda line: print(line, file=sys.stderr),
        )
    except KeyboardInterrupt:
        print(f"\nstopped; what is done is in {out}: the same command goes on from there.", file=sys.stderr)
        raise typer.Exit(1) from None
    counts = found.trials["state"].value_counts()
    print(", ".join(f"{counts.get(state, 0)} {state}" for state in ("done", "stopped", "failed")))
    scale = " (0 is no change, 1 a replicate)" if found.about["normalised"] else ""
    print(f"{found.about['objective']} over {len(found.contexts)} inner contexts{scale}:")
    for name, one in (("as it began", found.start), (f"best, trial {found.best['trial']}", found.best)):
        print(f"  {name:16} {one['value']:.4f}")
    print(f"preset: {(out / 'preset.toml').resolve()}\nread all: multipert report {out} --out search.html")
