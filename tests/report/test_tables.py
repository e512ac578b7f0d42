"""The tables of a study for papers, and the published ones beside them."""

import io
import re
from dataclasses import replace

import pandas as pd
import pytest

from multipert.errors import InputError
from multipert.evaluation import STUDY
from multipert.report import study_table
from report.study_by_hand import CELL_TYPES, card, eight_doses, one_perturbation, study

QUALITY = {"mtae": 0.8, "no-change": 0.0, "mean-shift": 0.5}


def test_csv_is_tidy_and_unrounded() -> None:
    results = study(one_perturbation(), eight_doses(), quality=QUALITY)
    table = pd.read_csv(io.StringIO(study_table(results, "csv")))
    assert set(table["metric"]) == set(results.metrics)
    assert set(table["label"]) == set(QUALITY)
    row = table[(table["dataset"] == "liver") & (table["label"] == "mtae") & (table["metric"] == "edist")].iloc[0]
    summary = results.summary.set_index(["dataset", "label"])
    assert row["mean"] == summary.loc[("liver", "mtae"), "edist"]
    assert row["sd"] == pytest.approx(summary.loc[("liver", "mtae"), "edist_sd"], rel=1e-12)
    assert row["floor"] == pytest.approx(5.5)
    assert row["normalised"] == pytest.approx((5.5 - row["mean"]) / 5.54)


def test_markdown_has_a_table_for_each_data_set() -> None:
    text = study_table(study(one_perturbation(), eight_doses(), quality=QUALITY), "md")
    assert text.count("### ") == 2
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert len({line.replace("\\|", "").count("|") for line in lines[:7]}) == 1
    head, _, best, second, third, floor, ceiling = lines[:7]
    assert head.startswith("| model | normalised | edist ↓ | degs ↑ |")
    assert best.startswith("| mtae | ")
    assert " | **" in best
    assert "± 0." in best
    assert second.startswith("| mean-shift |")
    assert "**" not in second + third
    assert floor.startswith("| floor | 0% | 5.50 |")
    assert ceiling.startswith("| ceiling | 100% | \u22120.04 |")


def test_names_do_not_break_a_markdown_table() -> None:
    model = replace(card("mtae"), label="a|b_c*")
    text = study_table(study(models=[model], quality={"a|b_c*": 0.4}), "md")
    assert r"| a\|b\_c\* |" in text


def test_latex_is_booktabs_with_names_escaped() -> None:
    model = replace(card("mtae"), label="my_model & 50%")
    results = study(models=[model, card("mean-shift")], quality={"my_model & 50%": 0.8, "mean-shift": 0.5})
    text = study_table(results, "latex")
    assert text.count(r"\begin{table}") == text.count(r"\end{table}") == 2
    assert r"\label{tab:kang-subset-study}" in text
    assert r"\label{tab:kang-subset-beyond}" in text
    assert r"\caption{kang\_subset: the nine metrics of the study; mean over 7 held-out contexts" in text
    assert r"my\_model \& 50\% & " in text
    assert r"r2\_hvg $\uparrow$" in text
    assert r"\textbf{" in text
    for line in text.splitlines():
        if line.endswith(r"\\"):
            assert line.replace(r"\&", "").count("&") in (10, 1 + len(results.metrics) - len(STUDY))
    columns = text.partition(r"\begin{tabular}{")[2].partition("}")[0]
    assert columns == "l" + "r" * 10


def test_a_model_that_lacks_contexts_is_starred_and_never_bold() -> None:
    results = study(quality=QUALITY, seeds=(1,), failed=[("kang_subset", "mtae", "NK", 1)])
    (line,) = (line for line in study_table(results, "md").splitlines() if line.startswith("| mtae"))
    assert line.startswith(r"| mtae\* |")
    assert "**" not in line


@pytest.mark.parametrize("format", ["md", "latex", "csv"])
def test_without_trials_there_is_still_a_table(format: str) -> None:
    assert "mtae" not in study_table(replace(study(quality=QUALITY), trials=[]), format)


def test_another_format_is_refused() -> None:
    with pytest.raises(InputError, match="no table format 'docx': choose from md, csv, latex, runs"):
        study_table(study(quality=QUALITY, seeds=(1,)), "docx")


def test_kinds_that_are_held_out_have_tables_of_their_own() -> None:
    unseen = dict.fromkeys(CELL_TYPES[:2], "perturbation")
    results = study(replace(one_perturbation(CELL_TYPES[:4]), unseen=unseen), quality=QUALITY, seeds=(1,))
    table = pd.read_csv(io.StringIO(study_table(results, "csv")))
    assert table.groupby("unseen")["trials"].unique().map(list).to_dict() == {"context": [2], "perturbation": [2]}
    text = study_table(results, "md")
    assert "### kang\\_subset: perturbation\n" in text
    assert "Mean over 2 held-out cases" in text
    assert "Mean over 2 held-out contexts" in text
    assert len(set(re.findall(r"\\label{(.*?)}", study_table(results, "latex")))) == 4
