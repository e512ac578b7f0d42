"""A held-out test of real cells of a small world, with scores made by hand."""

import sys
from collections.abc import Callable, Iterator

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

from multipert.benchmark import HeldOutTest, Outcome
from multipert.data import PerturbationData, leave_context_out, simulate
from multipert.models import Model
from multipert.report import run_page
from multipert.training import History
from report.made_by_hand import HELD_OUT, Candidate, MakeTest, Page, losing, winning


@pytest.fixture(scope="session", autouse=True)
def few_violins() -> Iterator[None]:
    """Two are enough to see: drawing takes most of the time of these tests."""
    with pytest.MonkeyPatch.context() as patch:
        # By way of the modules: the package hands on a function of the module's name.
        patch.setattr(sys.modules[run_page.__module__], "GENES_DRAWN", 2)
        yield


@pytest.fixture(scope="session")
def cells() -> AnnData:
    return simulate(
        n_genes=60,
        contexts=("A", "B", HELD_OUT),
        perturbations=("alpha", "beta"),
        cells_per_group=12,
        counts_per_gene=2,
        response=3,
        seed=3,
    )


@pytest.fixture(scope="session")
def make_test(cells: AnnData) -> MakeTest:
    def make(
        *tables: pd.DataFrame,
        model: Model | None = None,
        history: History | None = None,
        renamed: Callable[[AnnData], AnnData] = lambda cells: cells,
        held_out: str = HELD_OUT,
    ) -> HeldOutTest:
        adata = renamed(cells.copy())
        data = PerturbationData.from_anndata(
            adata, perturbation_key="condition", control="control", context_key="cell_type"
        )
        model = (model or Candidate()).fit(data, leave_context_out(data, held_out))
        model.history_ = history or model.history_
        control = data.to_anndata(data.rows(condition="control", context=held_out))
        outcomes = [
            Outcome(
                perturbation,
                control,
                data.to_anndata(data.rows(condition=perturbation, context=held_out)),
                model.predict(control, perturbation),
                table,
            )
            for perturbation, table in zip(data.perturbations, tables, strict=False)
        ]
        return HeldOutTest(model, data, held_out, outcomes)

    return make


@pytest.fixture(scope="session")
def trained() -> History:
    history = History()
    for epoch in range(1, 5):
        history.add("warm", epoch, 10 * epoch, float(epoch), {"train_mse": 1 / epoch, "validation_mse": 1.5 / epoch})
    for epoch in range(1, 4):
        history.add("main", epoch, 40 + 10 * epoch, 4.0 + epoch, {"train_mse": 0.2, "train_kl": np.exp(-epoch)})
    return history


@pytest.fixture(scope="session")
def one(make_test: MakeTest, trained: History) -> Page:
    return Page(run_page(make_test(winning(), history=trained)))


@pytest.fixture(scope="session")
def two(make_test: MakeTest, trained: History) -> Page:
    return Page(run_page(make_test(winning(), losing(), history=trained)))
