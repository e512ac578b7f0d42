"""What the documentation names is there."""

import importlib
import pkgutil
import re
import runpy
from pathlib import Path

import pytest

import multipert as mp

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
REFERENCE = runpy.run_path(str(ROOT / "docs" / "reference.py"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_name_of_the_package_in_the_documentation_can_be_imported(page: Path) -> None:
    for dotted in sorted(set(re.findall(r"\b(?:mp|multipert)((?:\.[A-Za-z_]+)+)\(", page.read_text("utf-8")))):
        assert pkgutil.resolve_name(f"multipert{dotted}"), f"{page.name} names multipert{dotted}"


def test_the_reference_has_a_page_for_every_package_and_module() -> None:
    inside = {f"multipert.{one.name}": one.ispkg for one in pkgutil.iter_modules(mp.__path__)}
    packages = {name for name, is_package in inside.items() if is_package}
    assert {"multipert", *packages} == {
        *REFERENCE["PACKAGES"],
        "multipert.cli",
    }  # its commands have a page of their own
    assert {*inside} - packages == {*REFERENCE["MODULES"], "multipert.progress"}  # how commands say how far they are


@pytest.mark.parametrize("package", REFERENCE["PACKAGES"])
def test_what_the_reference_documents_is_what_a_package_offers(package: str) -> None:
    module = importlib.import_module(package)
    documented = {one.name: one for one in REFERENCE["public_names"](package)}
    assert set(documented) == set(module.__all__) - {"models"}  # a package of its own
    for name, one in documented.items():
        assert hasattr(module, name)
        assert one.docstring, f"{package}.{name} says nothing of itself"


@pytest.mark.parametrize("module", REFERENCE["MODULES"])
def test_public_modules_say_what_their_names_are(module: str) -> None:
    names = REFERENCE["public_names"](module)
    assert names
    assert all(one.docstring and hasattr(importlib.import_module(module), one.name) for one in names)


def test_every_page_of_the_documentation_is_in_its_tree() -> None:
    docs = ROOT / "docs"
    listed = set((docs / "index.md").read_text("utf-8").splitlines())
    pages = {page.relative_to(docs).with_suffix("").as_posix() for page in docs.rglob("*.md")}
    assert {page for page in pages if not page.startswith("reference/")} - {"index"} <= listed


def test_scoring_is_part_of_the_public_surface() -> None:
    for name in ("evaluate", "evaluate_many", "scorecard", "bounds", "check"):
        assert callable(getattr(mp, name))
        assert name in dir(mp)
