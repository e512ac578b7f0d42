"""What the study costs at full size: one published row run end to end, and all of them estimated.

    python -m benchmarks.full_size row --out DIR                  # one model, held-out cell type and seed
    python -m benchmarks.full_size row --out DIR --model scvidr   # the cheapest trained row: minutes
    python -m benchmarks.full_size costs --out DIR                # all rows of the three case studies, estimated

Cells are simulated in the shapes of the case studies, so no score means anything here. A row goes the whole way that a
reader's goes: a file of cells and a study file, ``multipert benchmark``, ``multipert report``, a page. What is done is
kept in DIR: a repeated call goes on from there. The costs are those that ``multipert benchmark --plan`` estimates from
a few measured steps of every model, in processor time, on a tenth of the cells and times ten. Those on a GPU are
assumed, not measured.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

import multipert as mp
from multipert.benchmark import Cost, estimate_costs, plan_study, read_study
from multipert.data import dataset, write_cells, write_text

STUDIES = Path(__file__).parents[1] / "studies"
GPU_STEP = 0.002
"""Seconds a step is assumed to take on a GPU, which launches some hundred small kernels in it, one after another."""
PART = 10
"""Costs are measured on so many times fewer cells."""


@dataclass(frozen=True)
class Shape:
    """The shape of a case study's cells, as its models see them.

    Attributes
    ----------
    cells, genes
        After preprocessing; of Nault before its filter, whose outcome is not published.
    contexts
        How many are held out in turn.
    doses
        Of the one perturbation; none where it has no doses.
    """

    cells: int
    genes: int
    contexts: int
    doses: tuple[float, ...] | None = None


SHAPES = {
    "kang": Shape(18_868, 6_998, 7),
    "nault": Shape(131_000, 5_000, 11, (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30)),
    "hagai": Shape(77_642, 6_619, 4),
}


def stand_in(name: str, folder: Path, part: int) -> Path:
    """Cells of a case study's shape, log-normalised, in groups of unequal size; drawn where they are not yet there.

    ``part`` times fewer cells than the case study has.
    """
    shape = replace(SHAPES[name], cells=SHAPES[name].cells // part)
    file = folder / f"{name}-{shape.cells}.h5ad"
    if not file.exists():
        contexts = dataset(name).contexts or [f"type {number}" for number in range(1, shape.contexts + 1)]
        mean = shape.cells / (shape.contexts * (1 + len(shape.doses or (1,))))
        drawn = mp.simulate(
            n_genes=shape.genes,
            contexts=contexts,
            perturbations=["stimulated"],
            doses=shape.doses,
            cells_per_group=(round(0.5 * mean), round(1.8 * mean)),
            counts_per_gene=0.09,  # at which as many values are zero as in `kang_subset`
            seed=1,
        )
        del drawn.layers["counts"], drawn.uns["truth"]
        if drawn.n_obs < shape.cells:
            raise SystemExit(f"{drawn.n_obs} cells were drawn, fewer than the {shape.cells} of {name}")
        kept = np.sort(np.random.default_rng(0).permutation(drawn.n_obs)[: shape.cells])
        write_cells(drawn[kept].copy(), file)
    return file


def study_file(name: str, folder: Path, *, row: tuple[str, str, int] | None = None) -> Path:
    """The shipped study file of a case study on part of its cells; or, on all, one model, held-out context and seed."""
    cells, doses = stand_in(name, folder, PART if row is None else 1), SHAPES[name].doses
    settings = (STUDIES / f"{name}.toml").read_text("utf-8").partition("[[datasets]]")[0]
    table = ["[[datasets]]", f'name = "{name}-shaped"', f'path = "{cells.name}"', 'context_key = "cell_type"']
    table += ['perturbation_key = "condition"', 'control = "control"'] if doses is None else ['dose_key = "dose"']
    file = folder / f"{name}.toml"
    if row is not None:
        model, held_out, seed = row
        settings = f'title = "One row at full size"\npreset = "study"\nseeds = [{seed}]\nmodels = ["{model}"]\n\n'
        table.append(f'held_out = ["{held_out}"]')
        file = folder / f"{name}-{model}.toml"
    write_text(file, settings + "\n".join(table) + "\n")
    return file


def multipert(*arguments: str | Path) -> tuple[float, float]:
    """Run a command of the command line; its seconds, and those of them that it had a processor."""
    started, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([Path(sys.executable).with_name("multipert"), *arguments], check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    processor = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return time.monotonic() - started, processor


def show_row(folder: Path, model: str, held_out: str, seed: int) -> None:
    """Run one row from its file of cells to its page, and print what each part took."""
    study, results = study_file("kang", folder, row=(model, held_out, seed)), folder / f"results-{model}"
    seconds = {"multipert benchmark": multipert("benchmark", study, "--out", results)}
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    seconds["multipert report"] = multipert("report", results, "--out", folder / f"{model}.html")
    (trial,) = (json.loads(file.read_text("utf-8")) for file in (results / "trials").glob("*.json"))
    shape = SHAPES["kang"]
    print(f"\n{model}, study preset, {held_out} held out, seed {seed}: {shape.cells:,} cells x {shape.genes:,} genes")
    for what, (wall, processor) in seconds.items():
        print(f"  {what:28}{wall:10.1f} s, of which {processor:.1f} s on a processor")
    print(f"  {'the fit within':28}{trial['seconds_fit']:10.1f} s, {trial['threads']} threads")
    print(f"  {'steps':28}{trial['steps']:10,}, {trial['steps'] / trial['seconds_fit']:.1f} a second")
    print(f"  {'peak memory of the trial':28}{trial['peak_memory_mb']:10.0f} MB")
    print(f"  {'peak memory of the command':28}{peak:10.0f} MB")


def show_costs(folder: Path, studies: Sequence[str]) -> None:
    """Print the cost of every model of each case study, then of all together."""
    print(
        f"hours in one process of one thread, or on a GPU assumed to take {1000 * GPU_STEP:.0f} ms a step of any model"
    )
    print(f"{'':18}{'trials':>8}{'million steps':>15}{'ms a step':>11}{'hours':>9}{'on a GPU':>10}")
    everything, trials = Cost(), 0
    for name in studies:
        plan = plan_study(read_study(study_file(name, folder)), device="cpu")
        each = len(plan.trials) // len(plan.models)
        measured = estimate_costs(plan.jobs, clock=time.process_time)
        costs = {
            label: Cost(PART * one.steps, PART * one.stepping, PART * one.beside) for label, one in measured.items()
        }
        print(name)
        for label, cost in costs.items():
            line(f"  {label}", 0 if label == "bounds" else each, cost)
        all_ = sum(costs.values(), Cost())
        line(f"{name}, all", len(plan.trials), all_)
        everything, trials = everything + all_, trials + len(plan.trials)
    line("all", trials, everything)


def line(name: str, trials: int, cost: Cost) -> None:
    """Print what some trials cost."""
    step = 1000 * cost.stepping / cost.steps if cost.steps else 0
    gpu = cost.steps * GPU_STEP + cost.beside
    print(
        f"{name:18}{trials:8}{cost.steps / 1e6:15.2f}{step:11.1f}{cost.seconds / 3600:9.1f}{gpu / 3600:10.1f}",
        flush=True,
    )


def main() -> None:
    """Run a row, or estimate all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["row", "costs"])
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    parser.add_argument("--model", default="mtae")
    parser.add_argument("--hold-out", default="CD14+Mono", choices=dataset("kang").contexts)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--studies", nargs="+", choices=SHAPES, default=list(SHAPES))
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    if options.what == "row":
        show_row(options.out, options.model, options.hold_out, options.seed)
    else:
        show_costs(options.out, options.studies)


if __name__ == "__main__":
    main()
