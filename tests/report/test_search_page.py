"""The page of a search: what it says, and that all can read it."""

from pathlib import Path

import pytest

import multipert as mp
from benchmark.test_search import LINEAR, written
from conftest import Run
from multipert.benchmark import load_search
from multipert.report import search_page
from report.page_rules import ReadPage, broken_rules, read


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("search")
    mp.tune(written(folder, 'title = "A <small> study"\n' + LINEAR), "linear", trials=4, out=folder / "found")
    return folder / "found"


@pytest.fixture(scope="module")
def page(found: Path) -> ReadPage:
    return ReadPage(search_page(load_search(found)))


def test_all_can_read_it(page: ReadPage) -> None:
    assert broken_rules(page) == []


def test_it_says_what_was_found_and_what_was_never_seen(page: ReadPage, found: Path) -> None:
    search, words = load_search(found), read(page.root)
    assert "The responses of D in made were put away" in words
    assert "A <small> study" in words
    assert f"Trial {search.best['trial']} has normalised edist" in page.verdict or "Nothing was found" in page.verdict
    for table, rows in (("Every trial", 4), ("normalised edist in every inner context", 3)):
        (one,) = [table_ for table_ in page.find("table") if read(table_.find("caption")[0]) == table]
        assert len(one.find("tbody")[0].find("tr")) == rows


def test_the_command_draws_it_finished_or_not(run: Run, found: Path, tmp_path: Path) -> None:
    assert run("report", found, "--out", tmp_path / "page.html")[0] == 0
    assert "What suits linear" in (tmp_path / "page.html").read_text()
    code, _, said = run("report", found, "--out", tmp_path / "page.md", "--format", "md")
    assert code == 2
    assert "has a page alone" in said
    lines = (found / "journal.log").read_text().splitlines(keepends=True)
    for name, kept in (("begun", 5), ("one trial", len(lines) // 4)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "search.json").write_bytes((found / "search.json").read_bytes())
        (tmp_path / name / "journal.log").write_text("".join(lines[:kept]))
        assert broken_rules(ReadPage(search_page(load_search(tmp_path / name)))) == []
