"""A study small enough to be run many times, and the one way its results are compared."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from multipert.benchmark import load_results

STUDY = """
title = "A small study"
seeds = [1, 2]
models = [
    { name = "mtae", epochs = 4, hidden = 16, latent = 8, batch_size = 16 },
    { name = "mtvae", epochs = 3, hidden = 16, latent = 8, batch_size = 16 },
    "mean-shift",
]
metrics = ["degs", "r2_hvg", "edistance", "edist", "discrimination"]

[[datasets]]
name = "made"
simulate = { n_genes = 60, contexts = ["A", "B", "C"], perturbations = ["alpha", "beta"], cells_per_group = 20 }
"""

TIMES = ("seconds_fit", "seconds_predict", "peak_memory_mb")


@pytest.fixture(scope="session")
def study_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("study") / "small.toml"
    path.write_text(STUDY)
    return path


@pytest.fixture(scope="session")
def undisturbed(study_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of the small study, run in one process from beginning to end."""
    from multipert.benchmark import plan_study, read_study, run_study

    out = tmp_path_factory.mktemp("undisturbed") / "out"
    assert run_study(plan_study(read_study(study_file)), out)
    return out


def outcomes(folder: Path) -> Mapping[tuple[str, str, int], Any]:
    """Everything each trial found out, its times apart."""
    results = load_results(folder)
    assert len(results.trials) == results.planned
    return {
        (trial.label, trial.held_out, trial.seed): {
            "status": trial.status,
            "scores": trial.scores,
            "means": {name: profile.mean.tolist() for name, profile in trial.profiles.items()},
            "steps": trial.steps,
            "losses": {name: values for name, values in trial.history.items() if name != "seconds"},
        }
        for trial in results.trials
    }
