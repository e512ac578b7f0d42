"""How long mtcell takes to fit and to predict, in seconds of the clock and of the processor.

python -m benchmarks.seconds
"""

import time
from collections.abc import Callable
from typing import TypeVar

import numpy as np

import multipert as mp
from benchmarks.split import SIMULATED
from multipert.process import own_process

T = TypeVar("T")


def timed(what: str, work: Callable[[], T]) -> T:
    """Do it, and print what it took."""
    clock, processor = time.perf_counter(), time.process_time()
    done = work()
    print(f"{what:62}{time.perf_counter() - clock:8.2f}{time.process_time() - processor:10.2f}", flush=True)
    return done


def world(n_genes: int, contexts: int, perturbations: int, cells_per_group: int) -> mp.PerturbationData:
    """Simulated cells; a value for every third gene or so."""
    names = [f"p{i}" for i in range(perturbations)]
    places = [f"c{i}" for i in range(contexts)]
    cells = mp.simulate(
        n_genes=n_genes, contexts=places, perturbations=names, cells_per_group=cells_per_group, counts_per_gene=0.2
    )
    return mp.PerturbationData.from_anndata(cells, **SIMULATED)


def main() -> None:
    """Print the seconds."""
    own_process()
    print(f"{'':62}{'clock':>8}{'processor':>10}")
    data = world(7_000, 7, 1, 143)
    fit = f"fit, {len(data):,} cells x 7,000 genes, 7 contexts, one held out"
    split = mp.leave_context_out(data, "c0")
    timed("an untimed first fit, which imports what it needs", lambda: mp.models.create("mtcell").fit(data, split))
    model = timed(fit, lambda: mp.models.create("mtcell").fit(data, split))
    rows = np.resize(data.rows(condition="control", context="c0"), 10_000)
    controls = data.to_anndata(rows)
    controls.obs_names = [f"cell{i}" for i in range(len(rows))]
    timed("predict 10,000 cells x 7,000 genes", lambda: model.predict(controls, "p0"))

    many = world(2_000, 10, 100, 20)
    fit = f"fit, 100 perturbations x 10 contexts x 2,000 genes ({len(many):,} cells)"
    timed(fit, lambda: mp.models.create("mtcell").fit(many, mp.leave_context_out(many, "c0")))


if __name__ == "__main__":
    main()
