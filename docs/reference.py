"""The reference pages, written from the package itself: API from stubs and docstrings, tables from the registries."""

import ast
import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

SOURCE = Path(__file__).parents[1] / "src" / "multipert"

PACKAGES = (
    "multipert",
    "multipert.data",
    "multipert.models",
    "multipert.evaluation",
    "multipert.benchmark",
    "multipert.report",
    "multipert.training",
    "multipert.networks",
)
"""Packages whose ``__init__`` says what is public, in the order of the pages."""

MODULES = ("multipert.testing", "multipert.errors", "multipert.registry", "multipert.process")
"""Modules whose functions and classes are public."""


class Name(NamedTuple):
    """A public name."""

    name: str
    module: str
    """Where it is defined."""
    kind: str
    """``function``, ``class``, ``model`` (a class with a name of its own) or ``data``."""
    docstring: str | None


# The API.


def public_names(package: str) -> list[Name]:
    """What a package or module offers, in the order of its stub (else of its source), read without importing it."""
    if package in MODULES:
        return [name for name in _defined(package).values() if name.kind != "data"]
    folder = _folder(package)
    stub = folder / "__init__.pyi"
    tree = ast.parse((stub if stub.exists() else folder / "__init__.py").read_text("utf-8"))
    offered = _listed(tree)
    names = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module is not None:  # `from . import models` is a page of its own
            module = f"{package}.{node.module}" if node.level else node.module
            for alias in node.names:
                if offered is None or alias.name in offered:
                    names.append(_find(module, alias.name))
    return names


def _folder(package: str) -> Path:
    return SOURCE.joinpath(*package.split(".")[1:])


def _listed(tree: ast.Module) -> set[str] | None:
    """What ``__all__`` lists; None for a stub, which offers all that it imports."""
    for node in tree.body:
        if isinstance(node, ast.Assign) and _target(node) == "__all__":
            return set(ast.literal_eval(node.value))
    return None


def _find(module: str, name: str) -> Name:
    """Where a name is defined, through the packages that hand it on."""
    if (_folder(module) / "__init__.py").exists():
        return next(one for one in public_names(module) if one.name == name)
    return _defined(module)[name]


def _defined(module: str) -> dict[str, Name]:
    """The public functions, classes and values of a module."""
    body = ast.parse(_folder(module).with_suffix(".py").read_text("utf-8")).body
    found = {}
    for node, after in zip(body, [*body[1:], None], strict=True):
        match node:
            case ast.FunctionDef(name=name):
                found[name] = Name(name, module, "function", ast.get_docstring(node))
            case ast.ClassDef(name=name):
                named = any(isinstance(one, ast.Assign) and _target(one) == "name" for one in node.body)
                found[name] = Name(name, module, "model" if named else "class", ast.get_docstring(node))
            case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)):
                said = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant) and after.value.value
                found[name] = Name(name, module, "data", said if isinstance(said, str) else None)
    return {name: one for name, one in found.items() if not name.startswith("_")}


def _target(node: ast.Assign) -> str | None:
    return getattr(node.targets[0], "id", None)


def _api_page(package: str, documented: Mapping[tuple[str, str], str]) -> Iterator[str]:
    """A page of a package: its names by the module that defines them; ``documented`` says where others stand."""
    names = public_names(package)
    yield from (package, "=" * len(package), "", f".. automodule:: {package}", "   :no-index:", "")
    elsewhere = [one for one in names if documented[one.module, one.name] != package]
    if elsewhere:
        yield "Also here: " + ", ".join(f":py:obj:`multipert.{one.name}`" for one in elsewhere) + "."
        yield ""
    here = [one for one in names if one not in elsewhere]
    for module in dict.fromkeys(one.module for one in here):
        if module != package:
            title = (
                module.removeprefix("multipert.").removeprefix(package.removeprefix("multipert") + ".").split(".")[-1]
            )
            title = title.replace("_", " ").capitalize()
            yield from (title, "-" * len(title), "", f".. automodule:: {module}", "   :no-index:", "")
        for one in here:
            if one.module == module:
                yield from _entry(package, one)


def _entry(package: str, one: Name) -> Iterator[str]:
    path = f"{package}.{one.name}"
    if one.kind == "data":  # autodoc sees values only where they are defined
        yield from (f".. py:data:: {path}", "", *(f"   {line}" for line in (one.docstring or "").splitlines()), "")
    elif one.kind == "model":  # its members are those of Model, and its values those of its card
        yield from (f".. autoclass:: {path}", "")
    else:
        yield from (f".. auto{one.kind}:: {path}", *(["   :members:"] if one.kind == "class" else []), "")


def _api() -> dict[str, str]:
    documented: dict[tuple[str, str], str] = {}
    for package in (*PACKAGES, *MODULES):
        for one in public_names(package):
            documented.setdefault((one.module, one.name), package)
    pages = {f"{p}.rst": "\n".join(_api_page(p, documented)) for p in (*PACKAGES, *MODULES)}
    toc = "\n".join((*PACKAGES, *MODULES))
    pages["api.md"] = (
        f"# Python\n\nEvery public name, from its docstring.\n\n```{{toctree}}\n:maxdepth: 1\n\n{toc}\n```\n"
    )
    return pages


# Commands, models, metrics, data sets.


def _commands() -> Iterator[str]:
    import typer

    from multipert.cli.app import app

    yield from ("# Commands", "", "What `multipert COMMAND --help` prints.", "")
    root = typer.main.get_command(app)
    yield from _command(root, "multipert", 2)


def _command(command: Any, path: str, level: int) -> Iterator[str]:
    context = command.context_class(command, info_name=path)
    usage = " ".join([path, *command.collect_usage_pieces(context)])
    yield from (f"{'#' * level} {path}", "", "```text", usage, "```", "", command.help or "", "")
    records = [p.get_help_record(context) for p in command.params]
    yield from _definitions((option, _cell(said)) for option, said in filter(None, records))
    for name, child in getattr(command, "commands", {}).items():
        yield from _command(child, f"{path} {name}", min(level + 1, 3))


def _models() -> Iterator[str]:
    from multipert.models import MODELS, preset_names, preset_values, space_in_words

    models = [MODELS[name] for name in MODELS.ours]
    yield from ("# Models", "", "What `multipert models` and `multipert models NAME` print.", "")
    for model in models:
        yield from (f"[{_code(model.name)}](#model-{model.name})", f": {_cell(model.title)}", "")
    for model in models:
        yield from (
            f"(model-{model.name})=",
            f"## {model.name}",
            "",
            f"{_cell(model.title[0].upper() + model.title[1:])}.",
            "",
        )
        said = {
            "class": f"{{py:class}}`multipert.models.{model.__name__}`",
            "family": _cell(model.family),
            "conditions on": _cell(model.serves),
            "assumes": _cell(model.assumes),
            "loss": _cell(model.loss),
            "source": _cell(model.source),
        }
        yield from _table(("about", "what"), said.items())
        presets = {preset: preset_values(model, preset) for preset in preset_names(model)}
        fields = dataclasses.fields(model.Parameters)
        if fields:
            rows = [
                (
                    _code(f.name),
                    *(_code(values[f.name]) for values in presets.values()),
                    _cell(space_in_words(f.metadata.get("search"))),
                    _cell(f.metadata["meaning"]),
                )
                for f in fields
            ]
            yield from _table(("parameter", *presets, "`multipert tune` tries", "meaning"), rows)


def _metrics() -> Iterator[str]:
    from multipert.evaluation import METRICS, PROFILES

    yield from ("# Metrics", "", "What `multipert metrics` lists; [which to trust](../metrics.md).", "")
    yield from _table(
        ("profile", "what", "cells"), [(_code(p.name), _cell(p.meaning), p.needs) for p in PROFILES.values()]
    )
    members = {p.name: p.metrics() for p in PROFILES.values()}
    rows = []
    for metric in (METRICS[name] for name in METRICS.ours):
        low, high = metric.range
        better = {"high": "higher is better", "low": "lower is better", "one": "best at 1"}[metric.better]
        said = [_cell(metric.meaning), f"{better}, from {low:g} to {high:g}", f"source: {_cell(metric.source)}"]
        if metric.same_as:
            said.append(f"the same number as {_code(metric.same_as)}")
        if metric.shares_control:
            said.append("taken in crossed halves")
        profiles = ", ".join(name for name, of in members.items() if metric.name in of)
        rows.append((metric.name, "; ".join([*said, f"profiles: {profiles}" if profiles else "in no profile"]) + "."))
    yield from _definitions(rows)


def _datasets() -> Iterator[str]:
    from multipert.data import DATASETS

    yield from ("# Data sets", "", "What `multipert datasets` lists, and how each gets onto your machine.", "")
    rows = []
    for one in DATASETS.values():
        get = _code(f"multipert datasets fetch {one.name}") if one.parts else _cell(one.manual)
        rows.append((_code(one.name), _cell(one.title), one.size, _cell(one.source), get))
    yield from _table(("data set", "what", "cells x genes", "source", "get it"), rows)


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> Iterator[str]:
    yield from (f"| {' | '.join(head)} |", f"|{'---|' * len(head)}")
    yield from (f"| {' | '.join(row)} |" for row in rows)
    yield ""


def _definitions(rows: Iterable[tuple[str, str]]) -> Iterator[str]:
    for term, said in rows:
        yield from (_code(term), f": {said}", "")


def _cell(text: str) -> str:
    """Text as Markdown shows it unchanged, in a cell of a table."""
    for sign in "\\|*_<>[]":
        text = text.replace(sign, f"\\{sign}")
    return text.replace("\n", " ")


def _code(value: object) -> str:
    if isinstance(value, tuple):
        value = ",".join(map(str, value)) or "none"
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return "`" + text.replace("|", "\\|") + "`"


def write(folder: Path) -> None:
    """Write the pages into a folder; those that say what they said keep their date, and are not built again."""
    pages = _api() | {
        "commands.md": "\n".join(_commands()),
        "models.md": "\n".join(_models()),
        "metrics.md": "\n".join(_metrics()),
        "datasets.md": "\n".join(_datasets()),
    }
    folder.mkdir(exist_ok=True)
    for stale in folder.iterdir():
        if stale.name not in pages:
            stale.unlink()
    for name, text in pages.items():
        path = folder / name
        if not path.exists() or path.read_text("utf-8") != text:
            path.write_text(text, "utf-8")
