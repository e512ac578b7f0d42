"""The page of a study: its verdict, its tables and figures, and that anyone can open and read it."""

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from multipert.benchmark import StudyResults
from multipert.benchmark.records import TrialResult
from multipert.models import MODELS
from multipert.report import study_page
from multipert.report.summary import summaries
from report.page_rules import ReadPage, broken_rules, read
from report.study_by_hand import (
    CELL_TYPES,
    card,
    eight_doses,
    one_perturbation,
    several_perturbations,
    study,
)

HOSTILE = "<script>alert('$x_1$')</script>&\"quoted\""
FEW = ("B", "NK")
LITTLE = ("edist", "degs")
SOME = ("degs", "r2_deg20", "mean_pairwise", "edist", "edist_vs_control")


@pytest.fixture(scope="module", autouse=True)
def few_genes() -> Iterator[None]:
    """Two are enough to see: drawing takes most of the time of these tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("multipert.report.figures.genes.GENES_DRAWN", 2)
        patch.setattr("multipert.report.figures.genes.PLACES_DRAWN", 4)
        patch.setattr("multipert.report.figures.cells.PLACES_DRAWN", 1)
        yield


@pytest.fixture(scope="module")
def both() -> ReadPage:
    """Two data sets, six models, two seeds; one trial failed."""
    failed = [("kang_subset", "scgen", "NK", 2)]
    data = (one_perturbation(("B", "Dendritic", "NK")), eight_doses())
    return ReadPage(study_page(study(*data, failed=failed, metrics=SOME)))


def quick(**changes: Any) -> ReadPage:
    """One small data set, as little drawn as there can be."""
    return ReadPage(study_page(quick_study(**changes)))


def quick_study(**changes: Any) -> StudyResults:
    data = changes.pop("data", one_perturbation(FEW))
    full = study(data, **{"metrics": LITTLE, "seeds": (1,), "noise": 0.0, **changes})
    free = [replace(trial, history={}, seconds_fit=0.0, peak_memory_mb=0.0, n_parameters=0) for trial in full.trials]
    return replace(full, trials=free, overviews={})


def table(page: ReadPage, caption: str) -> Any:
    (found,) = (one for one in page.find("table") if read(one.find("caption")[0]).startswith(caption))
    return found


def rows(part: Any) -> dict[str, list[str]]:
    """By the text of its head, without notes: the words of a row's cells."""
    return {row.find("th")[0].text.strip(): [read(cell) for cell in row.find("td")] for row in part.find("tr")}


def labels(page: ReadPage) -> list[str]:
    return [svg.attributes["aria-label"] for svg in page.find("svg")]


def test_it_keeps_the_rules_of_accessibility_and_asks_nothing_of_the_network(both: ReadPage) -> None:
    assert broken_rules(both) == []


def test_the_first_screen_holds_the_verdict_of_every_data_set(both: ReadPage) -> None:
    said = both.verdict
    assert said.count("The best of 4 models by edist is mtae-adv.") == 2
    assert "1 of 84 trials failed" in said
    assert [read(heading) for heading in both.find("h3")[:2]] == ["kang_subset", "liver"]


def test_the_colour_of_the_verdict_says_what_its_words_say() -> None:
    page = quick(quality={"mtae": -0.4, "scgen": -0.2, "mean-shift": -0.1})
    assert "No. Predicting that nothing changes would have been nearer to the truth" in page.verdict
    (box,) = (one for one in page.find("section") if "verdict" in one.attributes.get("class", ""))
    assert box.attributes["class"] == "verdict lost"


def test_the_leaderboard_is_sorted_and_says_how_far_each_came(both: ReadPage) -> None:
    found = table(both, "Leaderboard of kang_subset")
    (body,), (foot,) = found.find("tbody"), found.find("tfoot")
    assert list(rows(body)) == ["mtae-adv", "mtae", "mean-shift", "scgen", "no-change", "scvidr"]
    assert list(rows(foot)) == ["floor", "ceiling"]
    (by,) = (head for head in found.find("th") if "aria-sort" in head.attributes)
    assert read(by).startswith("edist")
    heads = [read(head) for head in found.find("th") if head.attributes["scope"] == "col"]
    assert [head.split()[0] for head in heads[:3]] == ["model", "edist", "normalised"]
    shares = [cells[1] for cells in rows(body).values()]
    assert shares[4] == "0%"
    assert shares[5].startswith("▼ worse than the better floor: \u2212")
    assert 80 < float(shares[0].rstrip("%")) < 92
    assert rows(foot)["ceiling"][:2] == ["\u22120.04", "100%"]
    assert "± 0." in rows(body)["mtae-adv"][0]


def test_the_best_of_each_column_is_marked(both: ReadPage) -> None:
    body = table(both, "Leaderboard of kang_subset").find("tbody")[0]
    best = {row.find("th")[0].text for row in body.find("tr") for cell in row.find("td") if "★" in read(cell)}
    assert best == {"mtae-adv"}


def test_a_number_of_two_names_is_shown_once() -> None:
    page = quick(metrics=("edist", "edistance", "mmd"))
    heads = [read(head) for head in table(page, "Leaderboard of kang_subset").find("th")]
    assert any(head.startswith("edistance") for head in heads)
    assert not any(head.startswith("mmd") for head in heads)


def test_a_picture_comes_before_the_first_table(both: ReadPage) -> None:
    text = both.text
    assert text.index("<svg") < text.index("<table")


def test_what_a_pilot_would_add_is_drawn_where_records_have_it() -> None:
    results = quick_study()
    pilots = {"0": 0.8, "20": 0.4}
    told = [
        replace(one, pilots={size: {"stimulated": {"edist": edist, "degs": 1.0}} for size, edist in pilots.items()})
        if one.label == "mtae-adv"
        else one
        for one in results.trials
    ]
    page = ReadPage(study_page(replace(results, trials=told)))
    assert "edist of mtae-adv by the number of cells of a pilot, kang_subset" in labels(page)
    assert "Means: 0.800 with 0, 0.400 with 20 cells." in read(page.root)
    assert "pilot" not in " ".join(labels(quick()))


def test_one_seed_has_no_spread() -> None:
    assert "±" not in read(table(quick(), "Leaderboard of kang_subset"))


def test_a_model_without_all_contexts_is_neither_best_nor_compared() -> None:
    failed = [("kang_subset", "mtae-adv", "NK", 1)]
    page = quick(failed=failed)
    assert "The best of 3 models by edist is mtae." in page.verdict
    assert "Not compared: mtae-adv, which has no score in some held-out contexts." in page.verdict
    body = table(page, "Leaderboard of kang_subset").find("tbody")[0]
    last = body.find("tr")[-1]
    assert last.find("th")[0].text == "mtae-adv"
    assert "1 of 2 trials, not compared" in read(last)
    assert "★" not in read(last)


def test_the_published_table_stands_beside_ours(both: ReadPage) -> None:
    found = table(both, "Our means on kang_subset above those published for kang")
    ours = rows(found.find("tbody")[0])
    assert list(ours) == ["mtae", "mtae-adv", "scgen", "scvidr"]
    assert ours["mtae"][0].endswith("printed (75.7)")
    assert ours["scvidr"][0].startswith("▼worse: 0.0")
    text = read(both.root)
    assert "kang_subset is not the data of the published table" in text
    assert "The presets used here (default) are not the study's" in text
    assert "Sinkhorn's (entropic), ours is exact" in text
    assert "Each of our 23 trials beside the study's run of the same context and seed" in text
    assert "without a score in this study: MTAeAdvG, MTAeOT" in text


def test_the_study_itself_is_expected_to_agree() -> None:
    data = replace(one_perturbation(FEW), name="kang")
    text = read(quick(data=data, models=[card("mtae", preset="study")], quality={"mtae": 0.8}).root)
    assert "is not the data of the published table" not in text
    assert "are not the study's" not in text


def test_data_without_a_published_table_have_none() -> None:
    assert "Published table" not in read(quick(data=replace(one_perturbation(FEW), published=None)).root)


def test_the_heat_map_has_a_cell_for_each_model_and_context(both: ReadPage) -> None:
    found = table(both, "edist of every model in every held-out context of kang_subset")
    assert [read(head) for head in found.find("thead")[0].find("th")] == ["model", "B", "Dendritic", "NK", "mean"]
    body = found.find("tbody")[0]
    assert all(cell.startswith("▼worse than the better floor") for cell in rows(body)["scvidr"])
    assert rows(body)["no-change"] == ["5.50"] * 4
    for row in body.find("tr"):
        for cell in row.find("td"):
            assert ("lost" in cell.attributes["class"]) == ("▼" in read(cell))
    assert rows(found.find("tfoot")[0])["ceiling"] == ["\u22120.04"] * 4


def test_the_figures_of_the_study_have_their_counterparts(both: ReadPage) -> None:
    drawn = labels(both)
    for metric in ("degs", "r2_deg20", "mean_pairwise", "edist"):
        assert f"{metric} of every model by context, kang_subset" in drawn
        assert f"{metric} of every model by dose, liver" in drawn
        assert f"{metric} of every model by dose, kang_subset" not in drawn
    headings = [read(heading) for heading in both.find("h4")]
    assert "Metrics of genes across contexts" in headings
    assert "Metrics of distance across doses" in headings
    assert "Expression of ISG15 under stimulated by context: control, true and predicted cells" in drawn
    assert "Mean expression of ISG15 by dose of TCDD, mean over 4 contexts" in drawn
    assert "Mean expression of ISG15 by dose of TCDD, Macrophages" in drawn
    assert {f"UMAP of kang_subset by {what}" for what in ("split", "context", "condition")} <= set(drawn)
    assert "Training of mtae: loss by step" in drawn
    assert not any(label.startswith("Training of mean-shift") for label in drawn)
    assert "Predicted against true mean expression, stimulated in B" in drawn
    assert "Dot plot of the genes that respond most under stimulated" in drawn
    assert "Differences of predicted from true genes, stimulated in B" in drawn
    assert "Control, true and predicted cells in two principal components, stimulated in B" in drawn
    assert "Time to fit one trial against the normalised score, kang_subset" in drawn


def test_several_perturbations_without_doses_are_drawn_one_by_one() -> None:
    page = quick(data=several_perturbations())
    assert "edist of every model by perturbation, glioblastoma" in labels(page)
    assert table(page, "edist of every model for every perturbation of glioblastoma")
    assert "(9 pairs of a perturbation and a context)" in page.verdict


def test_kinds_that_are_held_out_have_means_of_their_own() -> None:
    first, second = CELL_TYPES[:2]
    mixed = replace(one_perturbation(CELL_TYPES[:4]), unseen={first: "perturbation", second: "perturbation"})
    results = quick_study(data=mixed, exceptions={("mtae", name): 0.2 for name in (first, second)})
    page = ReadPage(study_page(results))
    scores = {
        kind: float(rows(table(page, f"Leaderboard of kang_subset by kind: {kind}").find("tbody")[0])["mtae"][0])
        for kind in ("perturbation", "context")
    }
    of_all = float(rows(table(page, "Leaderboard of kang_subset, mean over all that").find("tbody")[0])["mtae"][0])
    assert scores["context"] < of_all < scores["perturbation"]


def test_notes_that_differ_in_a_number_are_one_sentence() -> None:
    results = quick_study()
    notes = [{"amplitude": f"cannot tell: {n} genes respond, 10 are needed; crossed"} for n in (4, 8)]
    trials = [replace(one, notes=notes[place % 2]) for place, one in enumerate(results.trials)]
    text = study_page(replace(results, trials=trials))
    assert "amplitude: cannot tell: 4 to 8 genes respond, 10 are needed." in text
    assert text.count("crossed.") == 1


def test_the_doses_rise_and_their_means_are_told(both: ReadPage) -> None:
    (curve,) = (svg for svg in both.find("svg") if svg.attributes["aria-label"].endswith("of TCDD, T_Cells"))
    true = read(curve.find("desc")[0]).partition("True: ")[2].partition(". ")[0]
    values = [float(value) for value in true.split(", ")]
    assert len(values) == 8
    assert values[-1] > values[0] + 1


def test_what_failed_and_what_is_missing_is_told() -> None:
    failed = [("kang_subset", "scgen", "B", 1), ("kang_subset", "scgen", "NK", 1)]
    page = quick(failed=failed, missing=[("kang_subset", "mtae", "B", 1)])
    assert "Unfinished: 1 of 12 trials has not been run" in page.verdict
    assert "2 of 12 trials failed" in page.verdict
    (row,) = table(page, "Failed trials").find("tbody")[0].find("tr")
    assert "InputError: too few cells to pair" in read(row)
    assert "B (seed 1), NK (seed 1)" in read(row)
    assert "9 of 12 trials are done, 2 failed, 1 has not been run" in read(page.root)


def test_nothing_done_yet_is_a_page_too() -> None:
    full = quick_study()
    page = ReadPage(study_page(replace(full, trials=[], references={}, overviews={})))
    assert "No verdict." in page.verdict
    assert "No trial of this data set has been done." in read(page.root)
    assert broken_rules(page) == []


def test_results_without_an_overview_have_no_map() -> None:
    page = quick()
    assert not any("UMAP" in label for label in labels(page))
    assert "Cells of kang_subset" not in read(page.root)


def test_it_can_be_made_again_from_the_page(both: ReadPage) -> None:
    assert 'title = "A study by hand"' in both.find("pre")[-1].text
    text = read(both.root)
    assert "multipert 0.1.0, python 3.11.9, torch 2.9.1" in text
    assert "fingerprint 0123456789abcdef" in text


def test_hostile_names_are_only_text() -> None:
    data = replace(
        one_perturbation((HOSTILE, "NK")),
        name=HOSTILE,
        perturbations=(f"{HOSTILE}!",),
        conditions=("control", f"{HOSTILE}!"),
    )
    results = study(data, quality={"mtae": 0.5}, title=HOSTILE, metrics=["edist"], seeds=(1,))
    text = study_page(results)
    page = ReadPage(text)
    assert "<script>alert" not in text
    assert HOSTILE in page.find("h1")[0].words
    assert len(page.find("script")) == 1


def test_a_family_of_someone_elses_has_its_mark() -> None:
    theirs = replace(card("mtae"), label="theirs", family="diffusion")
    page = quick(models=[theirs, card("mean-shift")], quality={"theirs": 0.5, "mean-shift": 0.3})
    assert "◆ diffusion, the best: theirs" in read(page.root)


def test_scores_that_are_no_numbers_do_not_stop_it() -> None:
    def spoil(trial: TrialResult) -> TrialResult:
        bad = {name: {"edist": float("nan"), "degs": float("inf")} for name in trial.scores}
        return replace(trial, scores=bad) if trial.label == "scgen" else trial

    full = quick_study()
    page = ReadPage(study_page(replace(full, trials=[spoil(trial) for trial in full.trials])))
    assert "best of 3 models by edist is mtae-adv" in page.verdict
    assert not re.search(r"\b(nan|inf)\b", " ".join(read(cell) for cell in page.find("td")), re.IGNORECASE)
    assert broken_rules(page) == []


def test_the_same_results_give_the_same_page() -> None:
    results = study(one_perturbation(FEW), quality={"mtae": 0.5}, metrics=["edist"], seeds=(1,))
    assert study_page(results) == study_page(results)


@pytest.mark.slow
def test_all_models_on_seven_contexts_stay_small() -> None:
    quality = {name: place / 20 for place, name in enumerate(MODELS)} | {"no-change": 0.0}
    text = study_page(study(one_perturbation(), quality=quality, seeds=(1,)))
    assert len(text.encode()) < 3_000_000
    assert broken_rules(ReadPage(text)) == []


def test_a_dot_plot_tells_means_and_shares_of_cells() -> None:
    page = quick(quality={"mtae": 1.0, "no-change": 0.0}, data=one_perturbation(("B",)))
    (plot,) = (svg for svg in page.find("svg") if svg.attributes["aria-label"].startswith("Dot plot"))
    said = read(plot.find("desc")[0])
    (summary,) = summaries(quick_study(quality={"mtae": 1.0, "no-change": 0.0}, data=one_perturbation(("B",))))
    true = summary.references[0].profiles["stimulated"]
    gene = summary.responding("stimulated", 1)[0]
    place = list(summary.references[0].genes).index(gene)
    assert f"B, true: {gene} {true.mean[place]:.2f} in {100 * true.fraction[place]:.0f}%" in said


def test_a_metric_that_cannot_tell_says_so_and_has_no_best() -> None:
    results = quick_study()
    dull = {"drf": {"stimulated": {"degs": 0.01}}, "wins": {"stimulated": {"degs": 0.5}}}
    references = {place: replace(one, calibration=dull) for place, one in results.references.items()}
    found = table(ReadPage(study_page(replace(results, references=references))), "Leaderboard of kang_subset")
    heads = {read(head).split()[0]: read(head) for head in found.find("thead")[0].find("th")}
    assert "cannot tell here" in heads["degs"]
    assert "cannot tell here" not in heads["edist"]
    assert {cells[2].startswith("★") for cells in rows(found.find("tbody")[0]).values()} == {False}
    assert any(cells[0].startswith("★") for cells in rows(found.find("tbody")[0]).values())
