"""How many parameters it takes to serve eight doses and control: one multi-task model, or one model for each dose.

Every model is fitted for a moment, at the study's widths, to simulated cells of 5,000 genes in nine conditions.

    python -m benchmarks.parameters
"""

import dataclasses
from typing import Any

import pandas as pd

import multipert as mp
from multipert.models.network_model import OneForEach

BRIEF = {
    "batch_size": 8,
    "epochs": 1,
    "pretrain_epochs": 1,
    "transport_epochs": 1,
    "discriminator_epochs": 1,
    "joint_epochs": 1,
    "iterations": 1,
}


def main() -> None:
    """Fit every trained model once and print its size."""
    doses = (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30)
    cells = mp.simulate(n_genes=5000, contexts=("A", "B"), perturbations=("TCDD",), doses=doses, cells_per_group=12)
    data = mp.PerturbationData.from_anndata(cells, dose_key="dose", compound="TCDD", context_key="cell_type")
    split = mp.leave_context_out(data, "B")
    rows: list[dict[str, Any]] = []
    for name, kind in mp.models.MODELS.items():
        known = {field.name for field in dataclasses.fields(kind.Parameters)}
        if "batch_size" not in known:
            continue
        brief = {key: value for key, value in BRIEF.items() if key in known}
        model = mp.models.create(name, preset="study", **brief).fit(data, split)
        networks = len(model.network_) if isinstance(model, OneForEach) else 1
        rows.append({"model": name, "networks": networks, "parameters": model.n_parameters})
    table = pd.DataFrame(rows).set_index("model")
    table["x mtae"] = (table["parameters"] / int(rows[0]["parameters"])).round(2)
    print(f"{len(data.genes):,} genes, {len(data.conditions)} conditions")
    print(table.to_string())


if __name__ == "__main__":
    main()
