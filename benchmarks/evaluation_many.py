"""Time the scores of many perturbations at once beside cell-eval, cell-eval2 and scperteval, on what each shares.

    python -m benchmarks.evaluation_many [--perturbations 100] [--cells 200] [--genes 5000] [--repeats 3]

Simulated counts, one context as the truth and another as its prediction, in memory (to read the files takes all ways
alike). Every way runs in a process of its own; what it imports and compiles (a first call on a few cells) is left out
of the seconds and contained in the peak memory. Ratios are of processor time: on a busy machine a second is longer.
Ways that share metrics stand together, ours first; that they give the same numbers is the business of
tests/evaluation/test_vcc2026.py, test_calibration.py and test_interop.py.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

Cells = dict[str, Any]
"""AnnData by name: ``truth_log``, ``predicted_counts``, with controls; ``..._perturbed`` without; ``control_log``."""

KEY, CONTROL = "perturbation", "control"
SHARED = {
    "vcc2026": "the six metrics of vcc2026, of counts",
    "means": "mse, pearson_delta, discrimination",
    "calibration": "DRF and BDS of 13 protocols of means",
}


def write_cells(folder: Path, perturbations: int, cells: int, genes: int) -> None:
    """Write truth and prediction, controls among them, as counts and log-normalised."""
    import numpy as np

    from multipert.data import simulate

    names = [f"drug{i:03d}" for i in range(perturbations)]
    world = simulate(
        n_genes=genes, contexts=["A", "B"], perturbations=names, cells_per_group=cells, context_specific=0.3
    )
    world.obs[KEY] = world.obs["condition"].astype(str)
    controls = world[((world.obs["cell_type"] == "A") & (world.obs[KEY] == CONTROL)).to_numpy()]
    for name, context in (("truth", "A"), ("predicted", "B")):
        part = world[((world.obs["cell_type"] == context) & (world.obs[KEY] != CONTROL)).to_numpy()]
        for kind, layer in (("log", None), ("counts", "counts")):
            import anndata

            whole = anndata.concat([part, controls], index_unique="-")
            if layer:
                whole.X = whole.layers[layer]
            whole.obs = whole.obs[[KEY]]
            del whole.layers["counts"]
            is_control = (whole.obs[KEY] == CONTROL).to_numpy()
            whole.write_h5ad(folder / f"{name}_{kind}.h5ad")
            whole[~is_control].copy().write_h5ad(folder / f"{name}_{kind}_perturbed.h5ad")
            if name == "truth":
                whole[is_control].copy().write_h5ad(folder / f"control_{kind}.h5ad")
    np.savetxt(folder / "size.txt", [perturbations, cells, genes])


def ours_vcc2026(cells: Cells) -> Any:
    """Score by the profile."""
    from multipert.evaluation import evaluate_many

    return evaluate_many(**_roles(cells, "counts"), profile="vcc2026")


def cell_eval2_vcc2026(cells: Cells) -> Any:
    """Score by the preset."""
    from dataclasses import replace

    from cell_eval2 import EvalConfig, compute_metrics

    config = replace(
        EvalConfig.from_preset("vcc2026"), pert_col=KEY, control=CONTROL, target_gene_map={"*": None},
        cache_strict=False,
    )  # fmt: skip
    return compute_metrics(cells["predicted_counts"], cells["truth_counts"], config=config)


def ours_means(cells: Cells) -> Any:
    """Score by three metrics."""
    from multipert.evaluation import evaluate_many

    return evaluate_many(**_roles(cells, "log"), metrics=["mse", "pearson_delta", "discrimination"])


def cell_eval_means(cells: Cells) -> Any:
    """Score by its profile of means, as far as ours has it."""
    from cell_eval import MetricsEvaluator

    evaluator = MetricsEvaluator(
        adata_pred=cells["predicted_log"], adata_real=cells["truth_log"], control_pert=CONTROL, pert_col=KEY,
        outdir=tempfile.mkdtemp(), skip_de=True,
    )  # fmt: skip
    return evaluator.compute(profile="anndata", skip_metrics=["mae", "mse_delta", "mae_delta", "pearson_edistance"])


def scperteval_means(cells: Cells) -> Any:
    """Score by the three protocols that are these metrics."""
    import scperteval

    names = ["mse", "pearson_ctrl", "nir"]
    prepared = scperteval.prepare(cells["truth_log"], names, perturbation_key=KEY, control_label=CONTROL, min_cells=1)
    return [scperteval.score(prepared, name, cells["predicted_log"]) for name in names]


def _protocols() -> list[str]:
    from multipert.evaluation.protocols import PROTOCOLS

    return [name for name, protocol in PROTOCOLS.items() if not protocol.populations]


def ours_calibration(cells: Cells) -> Any:
    """Calibrate 13 protocols."""
    from scipy import sparse

    from multipert.evaluation.calibration import duplicates, summarise
    from multipert.evaluation.protocols import calibrate_protocols

    X, labels = sparse.csr_array(cells["truth_log"].X), cells["truth_log"].obs[KEY].to_numpy()
    groups = {name: X[labels == name] for name in sorted(set(labels) - {CONTROL})}
    return summarise(calibrate_protocols(duplicates(X[labels == CONTROL], groups, shared_controls=True), _protocols()))


def scperteval_calibration(cells: Cells) -> Any:
    """Calibrate the same 13."""
    import scperteval

    names = _protocols()
    prepared = scperteval.prepare(cells["truth_log"], names, perturbation_key=KEY, control_label=CONTROL, min_cells=1)
    return [
        scperteval.calibrate(prepared, name, calibrator=calibrator) for name in names for calibrator in ("drf", "bds")
    ]


def _roles(cells: Cells, kind: str) -> dict[str, Any]:
    return {
        "control": cells[f"control_{kind}"],
        "truth": cells[f"truth_{kind}_perturbed"],
        "predicted": cells[f"predicted_{kind}_perturbed"],
        "perturbation_key": KEY,
    }


WAYS: dict[str, list[Callable[[Cells], Any]]] = {
    "vcc2026": [ours_vcc2026, cell_eval2_vcc2026],
    "means": [ours_means, cell_eval_means, scperteval_means],
    "calibration": [ours_calibration, scperteval_calibration],
}


def timed(way: Callable[[Cells], Any], folder: Path, small: Path, repeats: int) -> None:
    """Run one way in this process, and print its seconds and the most memory (MiB) it held."""
    import anndata

    warnings.simplefilter("ignore")
    kind = "counts" if "vcc2026" in way.__name__ else "log"
    few, all_cells = (
        {path.stem: anndata.read_h5ad(path) for path in part.glob(f"*{kind}*.h5ad")} for part in (small, folder)
    )
    way(few)
    seconds, processor = [], []
    for _ in range(repeats):
        start, start_processor = time.perf_counter(), time.process_time()
        way(all_cells)
        seconds.append(time.perf_counter() - start)
        processor.append(time.process_time() - start_processor)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        "\n"
        + json.dumps({"seconds": statistics.median(seconds), "processor": statistics.median(processor), "peak": peak})
    )


def main() -> int:
    """Run every way in a process of its own, and print them side by side."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--perturbations", type=int, default=100)
    parser.add_argument("--cells", type=int, default=200, help="cells of each perturbation, and control cells")
    parser.add_argument("--genes", type=int, default=5000)
    parser.add_argument("--repeats", type=int, default=3, help="timed runs, of which the median counts")
    parser.add_argument("--only", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.only:
        (way,) = [way for ways in WAYS.values() for way in ways if way.__name__ == arguments.only]
        timed(way, arguments.folder / "whole", arguments.folder / "small", arguments.repeats)
        return 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for part, size in (
            ("whole", (arguments.perturbations, arguments.cells, arguments.genes)),
            ("small", (3, 40, 200)),
        ):
            (folder / part).mkdir()
            write_cells(folder / part, *size)
        print(
            f"{arguments.perturbations} perturbations x {arguments.cells} cells x {arguments.genes} genes, "
            f"{os.cpu_count()} processors"
        )
        for shared, ways in WAYS.items():
            print(f"\n{SHARED[shared]}\n{'':24}{'seconds':>9}{'processor':>11}{'peak MiB':>10}{'times ours':>12}")
            ours = None
            for way in ways:
                command = [sys.executable, "-m", "benchmarks.evaluation_many", "--only", way.__name__]
                command += ["--folder", name, "--repeats", str(arguments.repeats)]
                done = subprocess.run(command, capture_output=True, text=True, check=False)
                if done.returncode:
                    print(f"{way.__name__:24}failed: {done.stderr.strip().splitlines()[-1]}")
                    continue
                found = json.loads(done.stdout.strip().splitlines()[-1])
                ours = ours or found["processor"]
                times = f"{found['seconds']:9.2f}{found['processor']:11.2f}{found['peak']:10.0f}"
                print(f"{way.__name__:24}{times}{found['processor'] / ours:12.1f}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
