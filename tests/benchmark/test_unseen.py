"""Studies that hold out what training never sees: perturbations, combinations, doses."""

from pathlib import Path

import pytest

from multipert.benchmark import load_results, plan_study, read_study, run_study
from multipert.errors import InputError

WORLD = """
[[datasets]]
name = "world"
{keys}

[datasets.simulate]
n_genes = 40
contexts = ["A", "B"]
perturbations = ["x", "y", "z"]
cells_per_group = 12
{world}
"""
PAIRS, DOSES = 'combinations = ["x+y", "y+z"]', "doses = [1, 3, 10]"


def write(tmp_path: Path, keys: str, world: str = "", models: str = "") -> Path:
    models = models or '"mean-perturbation", "ridge-perturbation"'
    head = f'models = [{models}]\nmetrics = ["pearson_delta", "mse"]\n'
    path = tmp_path / "study.toml"
    path.write_text(head + WORLD.format(keys=keys, world=world))
    return path


@pytest.mark.parametrize(
    ("keys", "world", "expected"),
    [
        ('held_out_perturbations = ["x"]', "", {"x": "perturbation"}),
        ("held_out_perturbations = 3", "", dict.fromkeys("xyz", "perturbation")),
        ('held_out_combinations = ["x+y"]', PAIRS, {"x+y": "combination, 2 of 2 members seen"}),
        ('held_out_combinations = ["x+y"]\nmembers_seen = 1', PAIRS, {"x+y": "combination, 1 of 2 members seen"}),
        ("held_out_doses = [3]", DOSES, {"x@3, y@3, z@3": "dose"}),
        ('held_out_doses = ["x@10"]', DOSES, {"x@10": "dose"}),
        ('held_out = ["A"]\nheld_out_perturbations = ["x"]', "", {"A": "context", "x": "perturbation"}),
    ],
)
def test_what_is_held_out_is_named_by_its_kind(keys: str, world: str, expected: dict[str, str], tmp_path: Path) -> None:
    plan = plan_study(read_study(write(tmp_path, keys, world)))
    (card,) = plan.datasets
    assert sorted(card.held_out) == sorted(expected)
    assert {label: card.unseen.get(label, "context") for label in card.held_out} == expected


@pytest.mark.parametrize(
    ("keys", "world", "message"),
    [
        ('held_out_perturbations = ["q"]', "", "line 6: there is no perturbation 'q'"),
        ("held_out_perturbations = 7", "", "line 6: 3 perturbations cannot be divided into 7"),
        ('held_out_combinations = ["x"]', PAIRS, "line 6: 'x' is no combination"),
        ("held_out_doses = [4]", DOSES, "line 6: there is no dose 4"),
        ("held_out_doses = [4]", "", "line 6: these cells have no doses"),
        ('features = "smilles=x"', "", "line 6: there is no source of features 'smilles'"),
        ('features = "table=nowhere.csv"', "", "line 6: there is no file .*nowhere.csv"),
    ],
)
def test_a_mistake_is_named_with_its_line(keys: str, world: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        plan_study(read_study(write(tmp_path, keys, world)))


def test_unseen_perturbations_are_scored_beside_the_baselines_of_their_kind(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("name,one,two\nx,1,0\ny,0,1\nz,1,1\n")
    keys = 'held_out_perturbations = ["x", "y"]\nfeatures = "table=t.csv"'
    models = '{ name = "mtae", epochs = 2, batch_size = 16 }, "mean-perturbation", "nearest-perturbation", "scgen"'
    study = read_study(write(tmp_path, keys, models=models))
    assert not run_study(plan_study(study), tmp_path / "out"), "scgen fails"
    results = load_results(tmp_path / "out")
    scores = results.scores
    assert set(scores["label"]) == {"mtae", "mean-perturbation", "nearest-perturbation"}
    assert set(scores["unseen"]) == {"perturbation"}
    assert (scores["held_out"] == scores["perturbation"]).all()
    failed = [trial for trial in results.trials if trial.status == "failed"]
    assert {trial.label for trial in failed} == {"scgen"}
    assert "knows perturbations by their cells alone" in failed[0].error
    assert {"floor", "mean_response", "ceiling"} == set(results.bounds["label"])
