"""What the study costs at full size: one published row run end to end, and all of them estimated.

    python -m benchmarks.full_size row --out DIR                  # one model, held-out cell type and seed
    python -m benchmarks.full_size row --out DIR --model scvidr   # the cheapest trained row: minutes
    python -m benchmarks.full_size row --out DIR --model scvidr --epochs 1   # the whole way, hardly trained: a minute
    python -m benchmarks.full_size costs --out DIR                # all rows of the three case studies, estimated

Cells are simulated in the shapes of the case studies, so no score means anything here. A row goes the whole way that a
reader's goes: a file of cells and a study file, ``multipert benchmark``, ``multipert report``, a page. What is done is
kept in DIR: a repeated call goes on from there.

The costs of Kang's rows are those that ``multipert benchmark --plan`` estimates from a few measured steps of every
model, in processor time, on a tenth of the cells; those of the other case studies follow from their shapes. Those on a
GPU are assumed, not measured.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import multipert as mp
from multipert.benchmark import Cost, estimate_costs, plan_study, read_study
from multipert.data import dataset, write_cells, write_text
from multipert.models import MODELS, OneForEach

STUDIES = Path(__file__).parents[1] / "studies"
GPU_STEP = 0.002
"""Seconds a step is assumed to take on a GPU, which launches some hundred small kernels in it, one after another."""
PART = 10
"""Costs are measured on so many times fewer cells."""
SEEDS = 3
"""Of every row of the study."""


@dataclass(frozen=True)
class Shape:
    """The shape of a case study's cells, as its models see them.

    Attributes
    ----------
    cells, genes
        After preprocessing; of Nault before its filter, whose outcome is not published.
    contexts
        How many are held out in turn.
    perturbations
        How many there are beside control; each dose is one.
    """

    cells: int
    genes: int
    contexts: int
    perturbations: int


KANG = Shape(18_868, 6_998, 7, 1)
SHAPES = {"kang": KANG, "nault": Shape(131_000, 5_000, 11, 8), "hagai": Shape(77_642, 6_619, 4, 1)}


def stand_in(folder: Path, part: int) -> Path:
    """Cells of Kang's shape, ``part`` times fewer, log-normalised; drawn where they are not yet there."""
    cells = KANG.cells // part
    file = folder / f"kang-{cells}.h5ad"
    if not file.exists():
        mean = cells / (KANG.contexts * 2)
        drawn = mp.simulate(
            n_genes=KANG.genes,
            contexts=dataset("kang").contexts,
            perturbations=["stimulated"],
            cells_per_group=(round(0.5 * mean), round(1.8 * mean)),
            counts_per_gene=0.09,  # at which as many values are zero as in `kang_subset`
            seed=1,
        )
        del drawn.layers["counts"], drawn.uns["truth"]
        if drawn.n_obs < cells:
            raise SystemExit(f"{drawn.n_obs} cells were drawn, fewer than {cells}")
        kept = np.sort(np.random.default_rng(0).permutation(drawn.n_obs)[:cells])
        write_cells(drawn[kept].copy(), file)
    return file


def study_file(folder: Path, *, row: tuple[str, str, int] | None = None, epochs: int | None = None) -> Path:
    """The shipped study file on part of the cells; or, on all, one model, held-out context and seed."""
    cells = stand_in(folder, PART if row is None else 1)
    settings = (STUDIES / "kang.toml").read_text("utf-8").partition("[[datasets]]")[0]
    table = ["[[datasets]]", 'name = "kang-shaped"', f'path = "{cells.name}"', 'context_key = "cell_type"']
    table += ['perturbation_key = "condition"', 'control = "control"']
    file = folder / "kang.toml"
    if row is not None:
        model, held_out, seed = row
        changes = "" if epochs is None else f", epochs = {epochs}"
        settings = 'title = "One row at full size"\npreset = "study"\n'
        settings += f'seeds = [{seed}]\nmodels = [{{ name = "{model}"{changes} }}]\n\n'
        table.append(f'held_out = ["{held_out}"]')
        file = folder / f"kang-{model}.toml"
    write_text(file, settings + "\n".join(table) + "\n")
    return file


def multipert(*arguments: str | Path) -> tuple[float, float]:
    """Run a command of the command line; its seconds, and those of them that it had a processor."""
    started, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([Path(sys.executable).with_name("multipert"), *arguments], check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    processor = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return time.monotonic() - started, processor


def show_row(folder: Path, model: str, held_out: str, seed: int, epochs: int | None) -> None:
    """Run one row from its file of cells to its page, and print what each part took."""
    study = study_file(folder, row=(model, held_out, seed), epochs=epochs)
    results = folder / (f"results-{model}" if epochs is None else f"results-{model}-{epochs}")
    seconds = {"multipert benchmark": multipert("benchmark", study, "--out", results)}
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    seconds["multipert report"] = multipert("report", results, "--out", folder / f"{model}.html")
    (trial,) = (json.loads(file.read_text("utf-8")) for file in (results / "trials").glob("*.json"))
    preset = "study preset" if epochs is None else f"study preset but for epochs = {epochs}"
    print(f"\n{model}, {preset}, {held_out} held out, seed {seed}: {KANG.cells:,} cells x {KANG.genes:,} genes")
    for what, (wall, processor) in seconds.items():
        print(f"  {what:28}{wall:10.1f} s, of which {processor:.1f} s on a processor")
    print(f"  {'the fit within':28}{trial['seconds_fit']:10.1f} s, {trial['threads']} threads")
    print(f"  {'steps':28}{trial['steps']:10,}, {trial['steps'] / trial['seconds_fit']:.1f} a second")
    print(f"  {'peak memory of the trial':28}{trial['peak_memory_mb']:10.0f} MB")
    print(f"  {'peak memory of the command':28}{peak:10.0f} MB")


def show_costs(folder: Path) -> None:
    """Print the cost of every model on Kang, of each case study, and of all together."""
    print(f"hours in one process of one thread; on a GPU assumed to take {1000 * GPU_STEP:.0f} ms a step of any model")
    print(f"{'':18}{'trials':>8}{'million steps':>15}{'ms a step':>11}{'hours':>9}{'on a GPU':>10}")
    plan = plan_study(read_study(study_file(folder)), device="cpu")
    measured = estimate_costs(plan.jobs, clock=time.process_time)
    kang = {label: at_full_size(label, cost) for label, cost in measured.items()}
    for label, cost in kang.items():
        line(label, 0 if label == "bounds" else KANG.contexts * SEEDS, cost)
    everything, trials = Cost(), 0
    for name, shape in SHAPES.items():
        costs = [elsewhere(label, cost, shape) for label, cost in kang.items()]
        if shape.perturbations > 1:
            costs.append(elsewhere("scvidr-dose", kang["scvidr"], shape))
        cost, n = sum(costs, Cost()), (len(costs) - 1) * shape.contexts * SEEDS
        line(f"all of {name}", n, cost)
        everything, trials = everything + cost, trials + n
    line("all three", trials, everything)


def at_full_size(label: str, cost: Cost) -> Cost:
    """What was measured on part of the cells, for all of them; a model that counts iterations takes no more steps."""
    part = 1 if counts_iterations(label) else PART
    return Cost(part * cost.steps, part * cost.stepping, PART * cost.beside)


def elsewhere(label: str, cost: Cost, shape: Shape) -> Cost:
    """What rows cost on another case study, from what they cost on Kang.

    Steps go with trials and cells, a step with the genes, everything else with trials and cells. A method for one
    perturbation sees the control cells once for each.
    """
    trials, cells = shape.contexts / KANG.contexts, shape.cells / KANG.cells
    one_for_each = label in MODELS and issubclass(MODELS[label], OneForEach) and label != "scvidr-dose"
    networks = 2 * shape.perturbations / (1 + shape.perturbations) if one_for_each else 1
    more = trials * (shape.perturbations if counts_iterations(label) else cells * networks)
    return Cost(round(more * cost.steps), more * cost.stepping * shape.genes / KANG.genes, trials * cells * cost.beside)


def counts_iterations(label: str) -> bool:
    """Whether a model's steps are so many whatever the cells."""
    return label in MODELS and hasattr(MODELS[label].Parameters, "iterations")


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
    parser.add_argument("--epochs", type=int, help="fewer than published, to see that the whole way works")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    if options.what == "row":
        show_row(options.out, options.model, options.hold_out, options.seed, options.epochs)
    else:
        show_costs(options.out)


if __name__ == "__main__":
    main()
