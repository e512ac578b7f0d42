"""``multipert rank``: which perturbations move cells toward a state, or away from it."""

from pathlib import Path
from typing import Annotated

import typer

from multipert.cli.keys import MissingGenes
from multipert.errors import InputError

Runs = Annotated[
    list[Path],
    typer.Argument(
        metavar="RUN...", help="Folder that fit wrote, or several of other seeds on the same data.", show_default=False
    ),
]
Level = Annotated[
    float,
    typer.Option(help="Of intervals: what control cells and seeds leave open, not that a model may be wrong."),
]


def rank(
    runs: Runs,
    cells: Annotated[
        Path, typer.Option("--cells", metavar="CELLS", help="Control cells that are to be moved, h5ad or zarr.")
    ],
    toward: Annotated[
        Path | None,
        typer.Option("--toward", metavar="STATE", help="Cells in the wanted state, all of the file: h5ad or zarr."),
    ] = None,
    away_from: Annotated[
        Path | None,
        typer.Option("--away-from", metavar="STATE", help="In place of --toward: cells in an unwanted one."),
    ] = None,
    perturbation: Annotated[
        list[str] | None,
        typer.Option(
            "--perturbation", metavar="NAME[@DOSE]", help="A candidate; repeatable. By default all that is known."
        ),
    ] = None,
    features: Annotated[
        str | None,
        typer.Option(
            "--features",
            metavar="SOURCE=FILE",
            help="What further candidates are, a library of drugs say, in a file as fit was given: smiles=library.csv.",
        ),
    ] = None,
    level: Level = 0.9,
    top: Annotated[int, typer.Option("--top", metavar="N", min=1, help="Perturbations to print.")] = 20,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="RANKED.csv", help="Where all of them go, the best first.")
    ] = None,
    missing_genes: MissingGenes = "error",
) -> None:
    """Rank perturbations by how far they move control cells toward a state.

    Score 1 arrives there, 0 is no nearer than before, below 0 farther off; with --away-from, the way gone from it.
    """
    from multipert.cli.tables import print_rows
    from multipert.data import check_ending, check_writable, read_features, write_text
    from multipert.models import load
    from multipert.models import rank as rank_by_models

    state = toward if toward is not None else away_from
    if state is None or (toward is not None and away_from is not None):
        raise InputError("name the state with --toward CELLS or with --away-from CELLS: one of the two")
    if out is not None:
        check_ending(out, [".csv"])
        check_writable(out, inputs=[cells, state])
    ranked = rank_by_models(
        [load(run) for run in runs],
        cells,
        state,
        list(dict.fromkeys(perturbation or [])),
        features=None if features is None else read_features(features),
        away=away_from is not None,
        level=level,
        missing_genes=missing_genes,
    )
    way = "toward" if away_from is None else "away from"
    print_rows(ranked.head(top), f"{way} {state}: {len(ranked):,} perturbations, the best first")
    if out is not None:
        write_text(out, ranked.to_csv())
        print(f"written to {out}")
