"""Memory: the peak of a fit to 200,000 simulated cells x 7,000 genes, beside what it cannot do without.

python -m benchmarks.memory
"""

import argparse
import multiprocessing
import sys
import tempfile
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np


def simulated(cells: int, genes: int, perturbations: int = 1, share: float = 0.05) -> Any:
    """Sparse cells of no meaning, as AnnData: a value in every stretch of ``1 / share`` genes."""
    import pandas as pd
    from anndata import AnnData
    from scipy.sparse import csr_matrix

    rng = np.random.default_rng(0)
    stretch, each = round(1 / share), round(genes * share)
    columns = np.empty((cells, each), np.int32)
    values = np.empty((cells, each), np.float32)
    for start in range(0, cells, 1000):
        here = slice(start, min(start + 1000, cells))
        columns[here] = stretch * np.arange(each) + rng.integers(stretch, size=columns[here].shape)
        values[here] = rng.uniform(0.1, 3.0, values[here].shape)
    offsets = np.arange(0, cells * each + 1, each, dtype=np.int32 if cells * each < 2**31 else np.int64)
    matrix = csr_matrix((values.ravel(), columns.ravel(), offsets), shape=(cells, genes))
    labels = {"condition": ["control", *(f"p{i}" for i in range(perturbations))], "cell_type": list("ABCDEFG")}
    obs = pd.DataFrame(
        {key: np.resize(of, cells) for key, of in labels.items()},
        index=pd.RangeIndex(cells).astype(str),
    )
    return AnnData(matrix, obs=obs)


def forget_peak() -> None:
    """Start to measure the peak of memory anew."""
    Path("/proc/self/clear_refs").write_text("5", "ascii")


def high_water_mb() -> float:
    """The most memory held since the last :func:`forget_peak`."""
    (line,) = (line for line in Path("/proc/self/status").read_text("ascii").splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def measure_memory(what: str, cells: int, genes: int, wire: Connection) -> None:
    """Send what was measured, in MB: the bare import; or reading the cells, the fit, and what the fit needs."""
    import multipert as mp
    from multipert.process import own_process

    own_process()
    mp.models.create("mtae")  # what is imported late is imported by now
    if what == "import":
        wire.send({"import": high_water_mb()})
        return
    keys: dict[str, Any] = {"perturbation_key": "condition", "control": "control", "context_key": "cell_type"}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "cells.h5ad"
        if what == "reading":
            context = multiprocessing.get_context("spawn")
            writer = context.Process(target=write_simulated, args=(file, cells, genes))
            writer.start()
            writer.join()
            forget_peak()
            mp.PerturbationData.from_anndata(file, **keys)
            wire.send({"reading": high_water_mb()})
            return
    data = mp.PerturbationData.from_anndata(simulated(cells, genes), **keys)
    forget_peak()
    model = mp.models.create("mtae", epochs=1).fit(data, mp.leave_context_out(data, "A"), device="cpu")
    peak = high_water_mb()
    X, weights = data.X, 4 * model.n_parameters
    needs = {
        "sparse data": X.data.nbytes + X.indices.nbytes + X.indptr.nbytes,
        "weights": weights,
        "optimiser": 2 * weights,
        "one batch": 4 * model.parameters.batch_size * genes,
    }
    wire.send({"fit": peak, **{name: size / 2**20 for name, size in needs.items()}})


def write_simulated(file: Path, cells: int, genes: int) -> None:
    """Write simulated cells, in a process that takes its memory with it."""
    simulated(cells, genes).write_h5ad(file)


def show_memory(cells: int, genes: int) -> int:
    """Print the peak of a fit beside what it cannot do without; fail where it is more than 1.3 times as much."""
    context = multiprocessing.get_context("spawn")
    measured: dict[str, float] = {}
    for what in ("import", "reading", "fit"):
        ours_, theirs = context.Pipe()
        process = context.Process(target=measure_memory, args=(what, cells, genes, theirs))
        process.start()
        theirs.close()
        measured |= ours_.recv()
        process.join()
    needs = {name: measured[name] for name in ("sparse data", "weights", "optimiser", "one batch")}
    allowed = measured["import"] + 1.3 * sum(needs.values())
    print(f"{cells:,} cells x {genes:,} genes, MB")
    for name, size in {"bare import": measured["import"], **needs}.items():
        print(f"{name:36}{size:9.0f}")
    print(f"{'allowed: import + 1.3 x the rest':36}{allowed:9.0f}")
    print(f"{'peak of fit':36}{measured['fit']:9.0f}")
    ratio = (measured["fit"] - measured["import"]) / sum(needs.values())
    print(f"{'(peak of fit - import) / the rest':36}{ratio:9.2f}")
    print(f"{'peak of reading the file before it':36}{measured['reading']:9.0f}")
    return 0 if measured["fit"] <= allowed else 1


def main() -> int:
    """Print what was measured; fail where a fit needs too much."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, default=200_000)
    parser.add_argument("--genes", type=int, default=7_000)
    options = parser.parse_args()
    return show_memory(options.cells, options.genes)


if __name__ == "__main__":
    sys.exit(main())
