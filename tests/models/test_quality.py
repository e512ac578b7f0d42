"""The default recipe on real cells, each cell type held out in turn: as good as it was when it was chosen."""

from pathlib import Path

import pandas as pd
import pytest

import multipert as mp
from models.conftest import KEYS


@pytest.mark.slow
def test_mtae_on_kang(kang_path: Path) -> None:
    data = mp.PerturbationData.from_anndata(kang_path, **KEYS)
    scores = []
    for context in data.contexts:
        model = mp.models.create("mtae", seed=1).fit(data, mp.leave_context_out(data, context))
        control, truth = (data.to_anndata(data.rows(condition=name, context=context)) for name in data.conditions)
        scores.append(mp.evaluate(control=control, truth=truth, predicted=model.predict(control, "stimulated")))
    mean = pd.DataFrame(scores).mean()
    assert mean["degs"] >= 66
    assert mean["r2_hvg"] >= 0.93
    assert mean["r2_deg20"] >= 0.91
    assert mean["r2_deg100"] >= 0.93
    assert mean["edistance"] <= 0.43
