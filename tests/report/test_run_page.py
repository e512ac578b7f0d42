"""The page of a run: whole, readable by machines and people, and safe with any name."""

import re
import sys
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from anndata import AnnData

from multipert.models import NoChange
from multipert.report import run_page
from multipert.training import History
from report.made_by_hand import MakeTest, Page, losing, scores_of, winning

HOSTILE = "<script>alert('$x_1$')</script>&\"quoted\""


def everything(page: Page) -> list[Any]:
    def below(element: Any) -> list[Any]:
        return [element, *(found for child in element.inside for found in below(child))]

    return below(page.root)


def test_it_asks_nothing_of_the_network(one: Page) -> None:
    assert "http:" not in one.text
    assert "https:" not in one.text
    assert "url(http" not in one.text
    assert "@import" not in one.text
    for element in everything(one):
        for name in ("src", "href", "srcset", "action"):
            assert element.attributes.get(name, "#").startswith(("#", "data:image/png;base64,"))
    assert not one.find("link")


@pytest.mark.parametrize("which", ["one", "two"])
def test_structure(which: str, request: pytest.FixtureRequest) -> None:
    page: Page = request.getfixturevalue(which)
    levels = [int(element.tag[1]) for element in everything(page) if re.fullmatch("h[1-6]", element.tag)]
    assert levels.count(1) == 1
    assert levels[0] == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    for table in page.find("table"):
        (caption,) = table.find("caption")
        assert caption.words.strip()
        assert all(head.attributes["scope"] in ("row", "col") for head in table.find("th"))
        widths = {len(row.find("td") + row.find("th")) for row in table.find("tr")}
        assert len(widths) == 1
    for svg in page.find("svg"):
        assert svg.attributes["role"] == "img"
        assert svg.attributes["aria-label"]
        assert svg.inside[0].tag == "title"
        assert svg.inside[1].tag == "desc"
        assert svg.inside[1].attributes["id"] == svg.attributes["aria-describedby"]
    (language,) = page.find("html")
    assert language.attributes["lang"] == "en"


@pytest.mark.parametrize("which", ["one", "two"])
def test_ids_are_unique_and_links_lead_somewhere(which: str, request: pytest.FixtureRequest) -> None:
    page: Page = request.getfixturevalue(which)
    ids = [element.attributes["id"] for element in everything(page) if "id" in element.attributes]
    assert len(ids) == len(set(ids))
    wanted = {element.attributes["href"] for element in everything(page) if element.tag in ("a", "use")}
    wanted |= {f"#{name}" for name in re.findall(r"url\(#([^)]+)\)", page.text)}
    assert wanted <= {f"#{name}" for name in ids}


def test_it_says_what_was_done(one: Page) -> None:
    (title,) = one.find("h1")
    assert title.words.split() == ["Predicted", "by", "candidate:", "alpha", "in", "C"]
    text = " ".join(one.root.words.split())
    assert (
        "learned from 72 cells of 2 other contexts (A, B), control and perturbed, and the 12 control cells of C" in text
    )
    assert "Candidate(preset='default', seed=1)" in text
    assert "12 held out" in text


def test_the_genes_that_respond_most_are_named_and_drawn(make_test: MakeTest) -> None:
    test = make_test(winning())
    outcome = test.outcomes[0]
    # A gene that control cells lack and true cells have in plenty responds more clearly than any other.
    for cells, value in ((outcome.control, 0.0), (outcome.truth, 5.0)):
        dense = np.asarray(cells.X.toarray())
        dense[:, 7] = value + 0.01 * np.arange(len(dense)) * (value > 0)
        cells.X = dense
    page = Page(run_page(test))
    scatter, first, *_ = page.find("svg")
    assert "Gene0008" in scatter.words
    assert "Named, from the clearest response: Gene0008" in scatter.words
    assert first.attributes["aria-label"] == "Expression of Gene0008 in control, true and predicted cells"
    assert [caption.words for caption in page.find("figcaption")][1].strip() == "Gene0008 ↑"


def test_hostile_names_are_only_text(make_test: MakeTest, trained: History) -> None:
    def rename(cells: AnnData) -> AnnData:
        cells.var_names = [f"{HOSTILE}{number}" for number in range(cells.n_vars)]
        cells.obs["cell_type"] = cells.obs["cell_type"].cat.rename_categories({"C": HOSTILE})
        cells.obs["condition"] = cells.obs["condition"].cat.rename_categories({"alpha": HOSTILE})
        return cells

    text = run_page(make_test(winning(), losing(), history=trained, renamed=rename, held_out=HOSTILE))
    page = Page(text)
    (script,) = page.find("script")
    assert "table.sortable" in script.text
    assert "<script>alert" not in text
    assert HOSTILE in page.find("h1")[0].words
    assert any(HOSTILE in svg.words for svg in page.find("svg"))


def test_a_model_without_training_has_no_curve(make_test: MakeTest) -> None:
    page = Page(run_page(make_test(scores_of(no_change=0.8, mean_shift=0.4, ceiling=0.1), model=NoChange())))
    assert not [heading for heading in page.find("h2") if heading.words == "Training"]
    assert "no-change baseline itself" in page.verdict


def test_a_trained_model_has_a_curve_for_each_loss(one: Page) -> None:
    labels = [svg.attributes["aria-label"] for svg in one.find("svg")]
    assert "Training curve of mse" in labels
    assert "Training curve of kl" in labels


def test_several_perturbations_have_a_mean_and_a_section_each(one: Page, two: Page) -> None:
    assert [heading.words for heading in two.find("h2") if heading.words in ("alpha", "beta")] == ["alpha", "beta"]
    captions = [caption.words.strip() for caption in two.find("caption")]
    assert "Mean over 2 perturbations: the nine metrics of the study" in captions
    assert "beta in C: metrics beyond the study" in captions
    assert "in 1 of 2 perturbations" in two.verdict
    assert not any("Mean over" in caption.words for caption in one.find("caption"))


def test_what_is_no_number_is_a_dash_and_explained(make_test: MakeTest) -> None:
    scores = winning()
    scores.loc["no-change", "edistance"] = np.inf
    scores.loc[:, "de_recall"] = np.nan
    page = Page(run_page(make_test(scores)))
    assert not re.search(r"\b(inf|nan)\b", " ".join(one.words for one in page.find("td")), re.IGNORECASE)
    dashes = [abbr for cell in page.find("td") for abbr in cell.find("abbr")]
    assert len(dashes) == 1 + len(scores)
    assert all(abbr.text == "–" for abbr in dashes)  # noqa: RUF001
    assert "A dash: infinite" in page.root.words
    assert "A dash: undefined" in page.root.words


def test_only_methods_can_be_best(one: Page) -> None:
    table = one.find("table")[0]
    best = {
        row.find("th")[0].text
        for row in table.find("tr")
        for cell in row.find("td")
        if cell.attributes.get("class") == "best"
    }
    assert best == {"candidate"}
    (body,) = table.find("tbody")
    assert [row.find("th")[0].text for row in body.find("tr")] == ["candidate", "no-change", "mean-shift"]


def test_the_same_test_gives_the_same_page(make_test: MakeTest, trained: History, one: Page) -> None:
    assert run_page(make_test(winning(), history=trained)) == one.text


def test_of_many_perturbations_only_the_extremes_are_drawn(
    make_test: MakeTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    # By way of the modules: the package hands on a function of the module's name.
    monkeypatch.setattr(sys.modules[run_page.__module__], "PERTURBATIONS_DRAWN", 0)
    page = Page(run_page(make_test(winning(), losing())))
    assert not page.find("svg")
    assert "beta" in [heading.words for heading in page.find("h2")]
    assert "Figures are drawn for 0 perturbations" in page.root.words
