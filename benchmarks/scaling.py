"""What MTAe costs against cells, genes and perturbations; and one model for all perturbations against one for each.

    python -m benchmarks.scaling

Cells are simulated (a value for every twentieth gene). A step is timed over one epoch of a fit, after a first; the
seconds of a fit are that times its steps. Nothing that is shown was trained to its end.
"""

import argparse
import os
from typing import Any

import torch

import multipert as mp
from benchmarks.memory import simulated
from multipert.models.mtae import MTAe
from multipert.process import own_process

KEYS: dict[str, Any] = {"perturbation_key": "condition", "control": "control", "context_key": "cell_type"}
ADAM = 3  # numbers a parameter: itself and two moments


def timed(cells: int, genes: int, perturbations: int) -> tuple[MTAe, float]:
    """A model of that size, and the seconds of one of its steps."""
    data = mp.PerturbationData.from_anndata(simulated(cells, genes, perturbations), **KEYS)
    model = MTAe(epochs=2).fit(data, device="cpu", progress=False)
    history = model.history_.table
    return model, history["seconds"].diff().iloc[-1] / history["step"].diff().iloc[-1]


def line(name: str, model: MTAe, step: float, cells: int, models: int = 1) -> None:
    """Print what ``models`` of a kind cost in all, each fitted to ``cells`` cells."""
    p = mp.models.create("mtae").parameters
    steps = models * p.epochs * (cells // p.batch_size)
    numbers = models * model.n_parameters
    print(
        f"{name:44}{1000 * step:10.2f}{steps:10,}{step * steps:11.0f}{numbers / 1e6:11.2f}"
        f"{4 * ADAM * model.n_parameters / 2**20:11.0f}{4 * numbers / 2**20:11.0f}",
        flush=True,
    )


def main() -> None:
    """Print three tables."""
    own_process()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, nargs="+", default=[2_000, 20_000, 100_000])
    parser.add_argument("--genes", type=int, nargs="+", default=[1_000, 2_000, 4_000, 7_000, 14_000])
    parser.add_argument("--perturbations", type=int, nargs="+", default=[1, 3, 10, 30, 100])
    parser.add_argument("--of-each", type=int, default=1_000, help="cells of each condition")
    options = parser.parse_args()

    print(f"{torch.get_num_threads()} threads of {os.cpu_count()}; {mp.models.create('mtae').parameters.epochs} epochs")
    print(f"{'':44}{'ms a step':>10}{'steps':>10}{'s in all':>11}{'M numbers':>11}{'MB to fit':>11}{'MB saved':>11}")
    for cells in options.cells:
        line(f"{cells:,} cells x 7,000 genes", *timed(cells, 7_000, 1), cells)
    for genes in options.genes:
        line(f"10,000 cells x {genes:,} genes", *timed(4_000, genes, 1), 10_000)
    single = timed(2 * options.of_each, 7_000, 1)
    for count in options.perturbations:
        name = f"{count} perturbation{'s' * (count > 1)}, {options.of_each:,} cells of each"
        cells = (1 + count) * options.of_each
        line(f"{name}: one model", *timed(min(cells, 4_000), 7_000, count), cells)
        line(f"{'':{len(name) + 2}}one each", *single, 2 * options.of_each, count)


if __name__ == "__main__":
    main()
