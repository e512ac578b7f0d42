"""A million cells on disk: what each command needs, and how fast a fit reads its cells from there.

python -m benchmarks.scale                                     # 1,000,000 x 2,000; needs 2 GB of disk
python -m benchmarks.scale --cells 50000 --in-memory 25000
python -m benchmarks.scale --agree kang_subset                 # is a fit from disk as good as one in memory
python -m benchmarks.scale --readers                           # how fast cells are read, beside scDataset and annbatch
python -m benchmarks.scale --workers 3 --memory 1.5GiB         # a study of them by processes of so much memory each
"""

import argparse
import csv
import json
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

GENES = 2_000
CONTEXTS, PERTURBATIONS, HELD_OUT = ("A", "B", "C", "D", "E"), ("alpha", "beta", "gamma"), "E"
GROUPS = len(CONTEXTS) * (1 + len(PERTURBATIONS))
EPOCHS = 3
SEEDS, AGREE_EPOCHS = (1, 2, 3), 5

TITLE = f"{'':42} {'seconds':>8} {'MB above':>10}"
STUDY = """
title = "Cells that do not fit in memory"
seeds = [1]
models = [{{ name = "{model}", epochs = 1 }}, {{ name = "scgen", epochs = 1 }}]

[[datasets]]
name = "cells"
path = "{path}"
perturbation_key = "condition"
control = "control"
context_key = "cell_type"
on_disk = true
held_out = ["{held_out}"]
perturbations = ["alpha"]
"""

COMMAND = """
import sys
import multipert as mp, multipert.data, anndata, h5py, numba, pandas, scanpy, scipy, sklearn, torch, zarr
from pathlib import Path
from multipert.cli.app import main

def memory(what):
    lines = Path("/proc/self/status").read_text("ascii").splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(what))

Path("/proc/self/clear_refs").write_text("5", "ascii")
bare = memory("VmRSS")
try:
    {work}
finally:
    print("MEMORY", bare, memory("VmHWM"), file=sys.stderr)
"""


def step(name: str, work: str, *arguments: str | Path) -> tuple[float, float]:
    """Do a step in a process of its own; give its seconds, and the most memory it held above the bare import, in MB."""
    started = time.monotonic()
    command = [sys.executable, "-c", COMMAND.format(work=work), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True)
    seconds = time.monotonic() - started
    if done.returncode:
        sys.exit(f"{name} failed:\n{done.stdout}\n{done.stderr}")
    bare, peak = map(float, done.stderr.rsplit("MEMORY", 1)[1].split()[:2])
    print(f"{name:42} {seconds:8.0f} {peak - bare:10.0f}", flush=True)
    return seconds, peak - bare


def command(name: str, *arguments: str | Path) -> tuple[float, float]:
    """Do a step that is a command."""
    work = "sys.argv[0] = 'multipert'; main()"
    return step(name, work, *arguments)


def simulate(path: Path, cells: int) -> None:
    """Write the counts of so many cells."""
    world = {"n_genes": GENES, "contexts": CONTEXTS, "perturbations": PERTURBATIONS, "counts_per_gene": 0.08}
    work = f"mp.data.simulate_to({str(path)!r}, cells_per_group={cells // GROUPS}, **{world!r})"
    step(f"simulate {cells:,} cells", work)


def choose(cells: Path, out: Path, condition: str, most: int) -> None:
    """Write the cells of a condition, of all contexts, to a file of their own, ``most`` of them."""
    work = (
        "import numpy as np; from multipert.data.block_writer import write_in_blocks; "
        "from multipert.data.on_disk import MatrixOnDisk; "
        f"cells = mp.data.read_cells({str(cells)!r}, on_disk=True); X = MatrixOnDisk(cells.X.group); "
        f"rows = np.flatnonzero(cells.obs['condition'] == {condition!r}); "
        f"rows = rows[np.linspace(0, len(rows) - 1, min({most}, len(rows))).astype(int)]\n"
        f"    with write_in_blocks({str(out)!r}, cells.n_vars) as writer:\n"
        "        for _, block in X.blocks(rows): writer.append(block)\n"
        "        writer.finish(cells.obs.iloc[rows], cells.var, cells.uns)"
    )
    step(f"take {condition} cells", work)


def cells_a_second(run: Path) -> float:
    """Training cells a second in the epochs of a run, all reading in them and none before."""
    with (run / "history.csv").open(encoding="utf-8") as table:
        rows = list(csv.DictReader(table))
    batch = json.loads((run / "run.json").read_text("utf-8"))["parameters"]["batch_size"]
    # The first epoch is when code is compiled.
    steps = int(rows[-1]["step"]) - int(rows[0]["step"])
    return float(batch * steps / (float(rows[-1]["seconds"]) - float(rows[0]["seconds"])))


def agree(name: str, model: str, folder: Path) -> None:
    """Print the study's nine metrics of fits in memory and from a zarr store, over seeds.

    So few cells would be read at once, and be shuffled as in memory: blocks and reads are made smaller in proportion.
    """
    import pandas as pd

    import multipert as mp
    from multipert.data import PerturbationData, dataset, leave_context_out, locate, write_cells
    from multipert.training import examples

    examples.BLOCK, examples.FETCHED = 8, 128
    known, held_out = dataset(name), "B"
    cells = PerturbationData.read(locate(name), known.keys)
    perturbation = cells.perturbations[0]
    write_cells(cells.to_anndata(), folder / "cells.zarr")
    control, truth = (
        cells.to_anndata(cells.rows(condition=one, context=held_out)) for one in (cells.control, perturbation)
    )
    found = {}
    for on_disk in (False, True):
        data = PerturbationData.read(folder / "cells.zarr", cells.keys, on_disk=on_disk)
        for seed in SEEDS:
            fitted = mp.models.create(model, seed=seed, epochs=AGREE_EPOCHS).fit(
                data, leave_context_out(data, held_out)
            )
            predicted = fitted.predict(control, perturbation)
            print(".", end="", file=sys.stderr, flush=True)
            found["on disk" if on_disk else "in memory", seed] = mp.evaluate(
                control=control, truth=truth, predicted=predicted, profile="study"
            )
    table = pd.DataFrame(found).T.groupby(level=0)
    shown = pd.concat({"mean": table.mean(), "standard deviation": table.std()}, axis=0).swaplevel().sort_index().T
    print(f"{model}, {AGREE_EPOCHS} epochs, {name} without {held_out}, seeds {SEEDS}")
    print(shown.to_string(float_format=lambda value: f"{value:.4f}"))


def readers(folder: Path, cells: int = 200_000, batch: int = 64) -> None:
    """Print how many shuffled cells are read in a second of processor time, from an h5ad file and from a zarr store.

    Beside scDataset and annbatch, where they are installed, with blocks and reads as large.
    """
    import numpy as np
    import pandas as pd
    import torch
    import zarr
    from anndata.io import sparse_dataset
    from scipy.sparse import csr_matrix

    from multipert.data import read_cells
    from multipert.data.block_writer import write_in_blocks
    from multipert.data.on_disk import MatrixOnDisk
    from multipert.training import DataLoader, Examples, Shuffled
    from multipert.training.examples import BLOCK, FETCHED

    rng, each, part, stretch = np.random.default_rng(0), 100, 20_000, GENES // 100
    for name in ("cells.h5ad", "cells.zarr"):
        with write_in_blocks(folder / name, GENES) as writer:
            for _ in range(0, cells, part):
                columns = (stretch * np.arange(each) + rng.integers(stretch, size=(part, each))).ravel()
                values = rng.poisson(2, part * each).astype(np.float32) + 1
                starts = np.arange(part + 1) * each
                writer.append(csr_matrix((values, columns.astype(np.int32), starts), shape=(part, GENES)))
            obs, var = (pd.DataFrame(index=pd.RangeIndex(n).astype(str)) for n in (cells, GENES))
            writer.finish(obs, var, {})
        node = read_cells(folder / name, on_disk=True).X.group
        matrix = MatrixOnDisk(node)
        matrix.note_all_read()
        loader = DataLoader(torch.device("cpu"))
        ours = loader.endless(Shuffled(Examples(matrix, {"x": np.arange(cells)}, {}), batch), 1)
        ways = {"ours, as batches for a network": (len(one) for one in ours)}
        if find_spec("scdataset"):
            from scdataset import BlockShuffling, scDataset

            for called, rows in (("ours", matrix), ("anndata's", sparse_dataset(node))):
                shuffled = scDataset(_Rows(rows), BlockShuffling(BLOCK), batch, fetch_factor=FETCHED // batch, seed=1)
                ways[f"scDataset, rows by {called} reader"] = (one.shape[0] for one in shuffled)
        if name.endswith(".zarr") and find_spec("annbatch") and find_spec("zarrs"):  # it reads nothing else
            from annbatch import Loader

            loading = Loader(batch_size=batch, chunk_size=BLOCK, preload_nchunks=FETCHED // BLOCK, shuffle=True)
            zarr.config.set({"codec_pipeline.path": "zarrs.ZarrsCodecPipeline"})  # as it asks for; the others are open
            loading.add_dataset(sparse_dataset(read_cells(folder / name, on_disk=True).X.group))
            ways["annbatch, decoded by zarrs"] = (one["X"].shape[0] for one in loading)
        for called, sizes in ways.items():
            started, read = time.process_time(), 0
            while read < 3 * FETCHED:
                read += next(sizes)
            print(f"{name:12} {called:36} {read / (time.process_time() - started):10,.0f} cells a second")


class _Rows:
    """What scDataset reads from: rows and their number."""

    def __init__(self, matrix: Any) -> None:
        self.matrix = matrix

    def __len__(self) -> int:
        return int(self.matrix.shape[0])

    def __getitem__(self, rows: Any) -> Any:
        return self.matrix[rows]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, default=1_000_000)
    parser.add_argument("--in-memory", type=int, default=100_000, help="cells of the fit in memory beside it")
    parser.add_argument("--predicted", type=int, default=200_000, help="control cells to predict from, at most")
    parser.add_argument("--model", default="mtae")
    parser.add_argument("--readers", action="store_true", help="measure how fast shuffled cells are read, instead")
    parser.add_argument("--agree", metavar="DATA", help="compare fits of these cells, of the catalogue, instead")
    parser.add_argument("--workers", type=int, help="do a study by so many processes, instead")
    parser.add_argument("--memory", default="1.5GiB", help="the most that each of them may take")
    parser.add_argument("--folder", type=Path, help="keep the files here, and take what is there already")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        if options.readers:
            readers(Path(temporary))
            return
        if options.agree is not None:
            agree(options.agree, options.model, Path(temporary))
            return
        folder = options.folder or Path(temporary)
        (study if options.workers else measure)(options, folder)


def store(folder: Path, name: str, cells: int) -> Path:
    """So many log-normalised cells, made where they are not there yet."""
    counts, ready = folder / f"{name}.counts.zarr", folder / f"{name}.zarr"
    if not counts.exists():
        simulate(counts, cells)
    if not ready.exists():
        least = ("--genes", "0", "--min-counts", "1", "--min-genes", "1", "--on-disk")
        command(f"preprocess {cells:,} cells", "preprocess", counts, "--out", ready, *least)
    return ready


def study(options: argparse.Namespace, folder: Path) -> None:
    """Two models, one held-out context and one epoch, on the large store, by processes of little memory."""
    print(TITLE)
    cells = store(folder, "large", options.cells)
    file, out = folder / "study.toml", folder / "study"
    file.write_text(STUDY.format(path=cells, model=options.model, held_out=HELD_OUT), "utf-8")
    workers = ("--workers", str(options.workers), "--memory", options.memory)
    command(f"study by {options.workers} of {options.memory}", "benchmark", file, "--out", out, *workers)
    with (out / "results.csv").open(encoding="utf-8") as table:
        for trial in csv.DictReader(table):
            print({name: trial[name] for name in ("label", "held_out", "edist", "seconds_fit", "peak_memory_mb")})


def measure(options: argparse.Namespace, folder: Path) -> None:
    """Do every step in ``folder``."""
    keys = ("--perturbation-key", "condition", "--control", "control", "--context-key", "cell_type")
    fit = ("--model", options.model, "--epochs", str(EPOCHS), "--hold-out", HELD_OUT)
    print(TITLE)
    where = (("large", options.cells, "--on-disk"), ("small", options.in_memory, "--in-memory"))
    for name, cells, place in where:
        ready = store(folder, name, cells)
        if not (folder / f"{name}.run" / "model.json").exists():
            said = f"fit {cells:,} cells, {place[2:].replace('-', ' ')}"
            command(said, "fit", ready, *keys, *fit, "--out", folder / f"{name}.run", place)
    for condition in ("control", "alpha"):
        if not (folder / f"{condition}.zarr").exists():
            choose(folder / "large.zarr", folder / f"{condition}.zarr", condition, options.predicted)
    controls, predicted = folder / "control.zarr", folder / "predicted.zarr"
    asked = ("--cells", controls, "--perturbation", "alpha", "--out", predicted, "--on-disk")
    command(f"predict {options.predicted:,} cells", "predict", folder / "large.run", *asked)
    three = ("--control", controls, "--truth", folder / "alpha.zarr", "--predicted", predicted)
    command("evaluate", "evaluate", *three, "--on-disk")
    large, small = (cells_a_second(folder / f"{name}.run") for name, *_ in where)
    print(f"\n{options.model}: {large:,.0f} cells a second on disk, {small:,.0f} in memory: {large / small:.0%}")


if __name__ == "__main__":
    main()
