"""``multipert datasets``: the catalogue of public datasets, and how they get onto this machine."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from typer.core import TyperGroup

from multipert.errors import InputError

if TYPE_CHECKING:
    from multipert.data import Dataset

_WIDE = 1000


class _Catalogue(TyperGroup):
    """Takes a word that is no command as the name of a dataset: ``multipert datasets kang``."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        return super().resolve_command(ctx, args if args[0] in self.commands else ["show", *args])


app = typer.Typer(cls=_Catalogue, rich_markup_mode=None)

Name = Annotated[str, typer.Argument(metavar="NAME", help="See `multipert datasets`.", show_default=False)]


@app.callback(invoke_without_command=True)
def datasets(context: typer.Context) -> None:
    """List the public datasets: what each is, whether it is here, where to get it. `datasets NAME` prints one."""
    from multipert.data import DATASETS, find

    if context.invoked_subcommand is not None:
        return
    table = Table("dataset", "what", "size", "here", "get it", box=None, pad_edge=False, header_style="")
    table.columns[0].no_wrap = table.columns[4].no_wrap = True
    table.columns[3].overflow = "fold"  # a path is there to be copied
    for one in DATASETS.values():
        path = find(one.name)
        get = "fetch" if one.parts else "by hand"
        table.add_row(one.name, one.title, one.size, "no" if path is None else str(path), get)
    # Off a terminal, wide enough that no row is broken.
    Console(highlight=False, markup=False, width=None if sys.stdout.isatty() else _WIDE).print(table)
    print("\nfetch: `multipert datasets fetch NAME` downloads it, or with --from FILE registers a copy of yours.")
    print("by hand: `multipert datasets NAME` says where, and prints all there is to know of any of them.")


@app.command("show")
def show(name: Name) -> None:
    """Print one dataset in full; `multipert datasets NAME` does the same."""
    from multipert.data import dataset, find

    one = dataset(name)
    path = find(name)
    needs = ", ".join(f"{key}={value}" for key, value in (one.preprocessing or {}).items())
    rows = {
        "source": one.source,
        "size": one.size,
        "contexts": ", ".join(one.contexts) or f"see obs[{one.keys.context_key!r}]",
        "options": _options(one),
        "expression": f"counts, to be preprocessed: {needs}" if needs else "log-normalised",
        "compare with": f"published table of {one.published}" if one.published else "nothing published",
        "here": "no" if path is None else str(path),
        "get it": f"multipert datasets fetch {name}" if one.parts else one.manual,
    }
    print(f"{one.name}: {one.title}\n")
    width = max(map(len, rows))
    for label, text in rows.items():
        print(f"{label:{width}}  {text}")
    for part in one.parts:
        print(f"{'':{width}}  from {part.url}")


@app.command("fetch")
def fetch(
    name: Name,
    more: Annotated[
        list[Path] | None, typer.Argument(metavar="FILE", help="More files after --from.", show_default=False)
    ] = None,
    from_: Annotated[
        list[Path] | None,
        typer.Option("--from", metavar="FILE", help="Register a local h5ad; several files are put together."),
    ] = None,
) -> None:
    """Download a dataset (a stopped download goes on), or register a local copy with --from."""
    from multipert.data import dataset, find, register
    from multipert.data import fetch as download

    dataset(name)
    if from_:
        path = register(name, [*from_, *(more or [])])
        print(f"registered {name}: {path}")
        _say_if_hidden(name, path)
        return
    if more:
        raise InputError(
            f"to register {more[0]} as {name}, say --from: multipert datasets fetch {name} --from {more[0]}"
        )
    here = find(name)
    if here is not None:
        print(f"{name} is here already: {here}")
        return
    try:
        print(f"downloaded {name}: {download(name)}")
    except KeyboardInterrupt:
        print("\nstopped; what has come is kept: the same command goes on from there.", file=sys.stderr)
        raise typer.Exit(1) from None


def _say_if_hidden(name: str, path: Path) -> None:
    from multipert.data import find

    first = find(name)
    if first is not None and first != path:
        print(f"{first} goes before it, because MULTIPERT_DATA names that folder.", file=sys.stderr)


def _options(one: "Dataset") -> str:
    """What to tell ``multipert fit`` of its columns."""
    keys = one.keys
    given = {
        "--perturbation-key": keys.perturbation_key,
        "--control": keys.control if keys.perturbation_key is not None else None,
        "--dose-key": keys.dose_key,
        "--compound": keys.compound,
    }
    options = [f"{option} {value}" for option, value in given.items() if value is not None]
    return " ".join([*options, *(f"--context-key {column}" for column in keys.context_columns)])
