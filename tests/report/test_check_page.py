"""The page of a data check: what it says, and that all can read it."""

from typing import Any

import pytest

from evaluation.test_data_check import KEYS, planted
from multipert.data import simulate
from multipert.evaluation import DataCheck, check
from multipert.report import check_page
from report.page_rules import ReadPage, broken_rules, read


@pytest.fixture(scope="module")
def found() -> DataCheck:
    return check(planted(), KEYS, name="planted <faults>")


@pytest.fixture(scope="module")
def page(found: DataCheck) -> ReadPage:
    return ReadPage(check_page(found))


def test_all_can_read_it(page: ReadPage) -> None:
    assert broken_rules(page) == []


def test_it_says_the_verdict_and_every_finding(page: ReadPage, found: DataCheck) -> None:
    words = read(page.root)
    assert all(sentence in page.verdict for sentence in found.verdict)
    assert all(finding.what in words and finding.remedy in words for finding in found.findings)
    assert "planted <faults>" in words


def test_every_response_has_its_place(page: ReadPage, found: DataCheck) -> None:
    (table,) = [one for one in page.find("table") if read(one.find("caption")[0]) == "Every response in numbers"]
    assert len(table.find("tbody")[0].find("tr")) == len(found.groups)


@pytest.mark.parametrize(
    "world",
    [
        {"contexts": ["only"]},
        {"perturbations": ["one"]},
        {"contexts": ["only"], "perturbations": ["one"]},
        {"response": 0},
    ],
)
def test_small_and_silent_data_have_pages_too(world: dict[str, Any]) -> None:
    cells = simulate(**({"n_genes": 60, "cells_per_group": 12} | world))
    assert broken_rules(ReadPage(check_page(check(cells, KEYS)))) == []
