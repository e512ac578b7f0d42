"""Memory over time: fit, predict, evaluate and report in a loop, in one process.

python -m benchmarks.soak --minutes 30
"""

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

KEYS: dict[str, Any] = {"perturbation_key": "condition", "control": "control", "context_key": "cell_type"}
MODELS: dict[str, dict[str, Any]] = {"mtcell": {}, "mtae": {"epochs": 2, "hidden": 32, "latent": 8}, "linear": {}}


def resident_mb() -> float:
    """Memory this process holds now."""
    pages = int(Path("/proc/self/statm").read_text("ascii").split()[1])
    return pages * 4096 / 2**20


def turn(folder: Path, number: int) -> None:
    """Once through everything, on cells of its own."""
    import multipert as mp
    from multipert.benchmark import results_of_run
    from multipert.data import write_text
    from multipert.report import study_page

    adata = mp.simulate(
        n_genes=300, contexts=("A", "B", "C"), perturbations=("alpha",), cells_per_group=40, seed=number
    )
    data = mp.PerturbationData.from_anndata(adata, **KEYS)
    split = mp.leave_context_out(data, "B")
    name = list(MODELS)[number % len(MODELS)]
    model = mp.models.create(name, seed=number, **MODELS[name]).fit(
        data, split, run=folder / f"run{number}", progress=False, device="cpu"
    )
    model = mp.models.load(folder / f"run{number}")
    controls = data.to_anndata(data.rows(condition="control", context="B"))
    truth = data.to_anndata(data.rows(condition="alpha", context="B"))
    predicted = model.predict(controls, "alpha")
    mp.evaluate(control=controls, truth=truth, predicted=predicted)
    if number % 5 == 0:
        write_text(folder / "report.html", study_page(results_of_run(model, data, split)))


def main() -> None:
    """Print what memory the process holds as time goes by."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30.0)
    given = parser.parse_args()
    started, measured = time.monotonic(), []
    with tempfile.TemporaryDirectory() as name:
        number = 0
        while time.monotonic() - started < 60 * given.minutes:
            turn(Path(name), number)
            number += 1
            measured.append(((time.monotonic() - started) / 60, resident_mb()))
    minutes, held = np.array(measured).T
    print(f"{number} turns in {minutes[-1]:.1f} minutes; resident memory in MB")
    for what, share in (("after the first turns", 0.1), ("at a quarter", 0.25), ("at half", 0.5), ("at the end", 1.0)):
        print(f"  {what:22} {held[max(0, round(share * len(held)) - 1)]:8.1f}")
    half = len(held) // 2
    slope = np.polyfit(minutes[half:], held[half:], 1)[0]
    print(f"  slope, second half     {slope:8.3f} MB a minute, {slope * (minutes[-1] / max(number, 1)):.3f} MB a turn")


if __name__ == "__main__":
    main()
