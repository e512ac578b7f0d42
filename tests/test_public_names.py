"""What the documentation names is there."""

import pkgutil
import re
from pathlib import Path

import pytest

import multipert as mp

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_name_of_the_package_in_the_documentation_can_be_imported(page: Path) -> None:
    for dotted in sorted(set(re.findall(r"\b(?:mp|multipert)((?:\.[A-Za-z_]+)+)\(", page.read_text("utf-8")))):
        assert pkgutil.resolve_name(f"multipert{dotted}"), f"{page.name} names multipert{dotted}"


def test_scoring_is_part_of_the_public_surface() -> None:
    for name in ("evaluate", "evaluate_many", "scorecard", "bounds", "check"):
        assert callable(getattr(mp, name))
        assert name in dir(mp)
