"""Means over places: the one rule for what a mean is of, and for scores that are missing."""

from itertools import product

import numpy as np
import pandas as pd
import pytest

from multipert.benchmark import mean_scores, over_seeds


def scores(**by_label: list[float]) -> pd.DataFrame:
    """Scores in two contexts under two perturbations, one seed."""
    rows = [
        {"label": label, "held_out": context, "perturbation": perturbation, "seed": 1, "metric": value}
        for label, values in by_label.items()
        for (context, perturbation), value in zip(product("AB", "xy"), values, strict=True)
    ]
    return pd.DataFrame(rows)


def means(table: pd.DataFrame, *by: str) -> dict[object, float]:
    return dict(mean_scores(over_seeds(table, ["metric"]), list(by or ("label",)))["metric"])


def test_a_mean_is_over_all_places() -> None:
    assert means(scores(one=[1, 2, 3, 4])) == {"one": 2.5}
    assert means(scores(one=[1, 2, 3, 4]), "label", "held_out") == {("one", "A"): 1.5, ("one", "B"): 3.5}


def test_where_no_model_has_a_metric_it_is_left_out() -> None:
    assert means(scores(one=[1, np.nan, 3, 4], two=[2, np.nan, 4, 5])) == {
        "one": pytest.approx(8 / 3),
        "two": pytest.approx(11 / 3),
    }


def test_a_model_that_lacks_what_others_have_gets_no_mean() -> None:
    found = means(scores(one=[1, np.nan, 3, 4], two=[2, 3, 4, 5]))
    assert np.isnan(found["one"])
    assert found["two"] == 3.5


def test_every_place_counts_alike_whatever_the_number_of_its_seeds() -> None:
    table = scores(one=[1, 2, 3, 4])
    again = table[table["held_out"] == "A"].assign(seed=2, metric=[3.0, 4.0])
    assert means(pd.concat([table, again])) == {"one": 3.0}


def test_an_infinite_score_makes_an_infinite_mean() -> None:
    assert means(scores(one=[1, np.inf, 3, 4]))["one"] == np.inf
