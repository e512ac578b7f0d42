"""Time a training step of MTAe beside the usual implementation of the same network, on the same real cells.

    python -m benchmarks.training                    # ms a step: ours, the usual way, SCVI where it is installed
    python -m benchmarks.training --floor            # what a step cannot do without, counted and timed on this machine
    python -m benchmarks.training --memory           # peak of a fit to 200,000 simulated cells x 7,000 genes

Every contender trains in a process of its own and they take turns, so that whatever else the machine does disturbs all
alike, and each has its own peak of memory. All see the same cells in batches of the same size, and use the same number
of threads. A step lasts until the next one begins: gathering the batch, the losses' record and, between epochs, the
shuffling are all in it. A turn is a few epochs; the steps of its first are not counted.
"""

import argparse
import importlib
import multiprocessing
import os
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from multipert.training import Precision

BATCH = 64
NETWORK: dict[str, Any] = {"film_hidden": ()}
"""What differs from MTAe's default sizes: the study gives FiLM no hidden layer for one perturbation."""

Turns = Iterator[list[float]]
"""Milliseconds of each step, turn after turn."""


# The contenders.


def ours(precision: "Precision", epochs: int) -> Turns:
    """``fit`` as it is."""
    from multipert.models.mtae import MTAe

    starts: list[float] = []

    class Clocked(MTAe):
        def _loss(self, *arguments: Any) -> Any:
            starts.append(time.perf_counter())
            return super()._loss(*arguments)

    data = kang()
    while True:
        model = Clocked(epochs=1 + epochs, batch_size=BATCH, **NETWORK)
        starts.clear()
        model.fit(data, precision=precision, device="cpu", progress=False)
        yield lasted(starts, len(data), epochs)


def usual(epochs: int) -> Turns:
    """A Dataset with a dense row a cell, a DataLoader, dense layers, mean squared error, Adam as it comes."""
    import torch
    from torch import Tensor, nn
    from torch.utils.data import DataLoader, Dataset

    import multipert as mp

    data = kang()
    p = mp.models.create("mtae", **NETWORK).parameters
    profiles = data.X.toarray()
    conditions = np.eye(len(data.conditions), dtype=np.float32)[data.condition]
    assert (len(p.hidden), p.film_hidden) == (1, ()), "the plain network has one hidden layer, and none in FiLM"

    class Cells(Dataset[tuple[Tensor, Tensor]]):
        def __len__(self) -> int:
            return len(profiles)

        def __getitem__(self, cell: int) -> tuple[Tensor, Tensor]:
            return torch.from_numpy(profiles[cell]), torch.from_numpy(conditions[cell])

    class Autoencoder(nn.Module):
        def __init__(self, genes: int, conditions: int, hidden: int, latent: int) -> None:
            super().__init__()
            self.encoder = nn.Sequential(
                nn.Dropout(p.mask),
                nn.Linear(genes, hidden),
                nn.BatchNorm1d(hidden),
                nn.LeakyReLU(),
                nn.Dropout(p.dropout),
                nn.Linear(hidden, latent),
                nn.LeakyReLU(),
            )
            self.widen = nn.Sequential(nn.Linear(latent, hidden), nn.BatchNorm1d(hidden))
            self.gamma = nn.Sequential(nn.Linear(conditions, hidden), nn.LeakyReLU())
            self.beta = nn.Sequential(nn.Linear(conditions, hidden), nn.LeakyReLU())
            self.write = nn.Sequential(nn.LeakyReLU(), nn.Dropout(p.dropout), nn.Linear(hidden, genes), nn.LeakyReLU())

        def forward(self, x: Tensor, condition: Tensor) -> Tensor:
            h = self.widen(self.encoder(x))
            written: Tensor = self.write(self.gamma(condition) * h + self.beta(condition))
            return written

    loader = DataLoader(Cells(), batch_size=BATCH, shuffle=True, drop_last=True)
    network = Autoencoder(len(data.genes), len(data.conditions), p.hidden[0], p.latent)
    optimiser = torch.optim.Adam(network.parameters(), lr=p.lr)
    loss_of = nn.MSELoss()

    while True:
        starts = []
        for _ in range(1 + epochs):
            for x, condition in loader:
                starts.append(time.perf_counter())
                loss = loss_of(network(x, condition), x)
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
        yield lasted(starts, len(data), epochs)


def scvi(epochs: int) -> Turns:
    """SCVI of like width on the same cells, their counts guessed back; its encoder knows the condition as a batch."""
    from anndata import AnnData

    import multipert as mp

    scvi, lightning = (importlib.import_module(name) for name in ("scvi", "lightning"))
    data = kang()
    p = mp.models.create("mtae").parameters
    counts = data.X.copy()
    counts.data = np.rint(np.expm1(counts.data)).astype(np.float32)
    adata = AnnData(counts, obs={"condition": data.condition.astype(str)})
    scvi.model.SCVI.setup_anndata(adata, batch_key="condition")
    scvi.settings.verbosity = 0

    class Clock(lightning.Callback):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            self.starts: list[float] = []

        def on_train_batch_start(self, *_: object) -> None:
            self.starts.append(time.perf_counter())

    while True:
        model = scvi.model.SCVI(adata, n_hidden=p.hidden[0], n_latent=p.latent, n_layers=len(p.hidden))
        clock = Clock()
        model.train(
            max_epochs=1 + epochs,
            batch_size=BATCH,
            train_size=1.0,
            accelerator="cpu",
            callbacks=[clock],
            logger=False,
            enable_progress_bar=False,
            datasplitter_kwargs={"drop_last": True},
        )
        yield lasted(clock.starts, len(data), epochs)


CONTENDERS: dict[str, Callable[[int], Turns]] = {
    "multipert": lambda epochs: ours("auto", epochs),
    "multipert, float32": lambda epochs: ours("float32", epochs),
    "the usual way": usual,
    "scvi-tools SCVI": scvi,
}


def lasted(starts: list[float], cells: int, epochs: int) -> list[float]:
    """Milliseconds from each step's start to the next, the first epoch left out."""
    per_epoch = cells // BATCH
    assert len(starts) == (1 + epochs) * per_epoch
    return [1000 * (after - before) for before, after in pairwise(starts[per_epoch:])]


def kang() -> Any:
    """The real cells, as every contender gets them."""
    import multipert as mp
    from benchmarks.accuracy import KEYS, data_folder

    return mp.PerturbationData.from_anndata(data_folder() / "kang_subset.h5ad", **KEYS["kang_subset"])


# Taking turns.


def peak_mb() -> float:
    """The most memory this process ever held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def attend(name: str, epochs: int, threads: int, wire: Connection) -> None:
    """Train a turn each time one is asked for; answer with the milliseconds a step, and the peak of memory so far."""
    import torch

    torch.set_num_threads(threads)
    sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115 (what others print while they train)
    turns = CONTENDERS[name](epochs)
    while wire.recv():
        try:
            wire.send((next(turns), peak_mb()))
        except ImportError as error:
            wire.send(str(error))
            return


def take_turns(turns: int, epochs: int, threads: int) -> None:
    """Print milliseconds a step, ratio and peak of every contender."""
    context = multiprocessing.get_context("spawn")
    wires: dict[str, Connection] = {}
    for name in CONTENDERS:
        wires[name], theirs = context.Pipe()
        context.Process(target=attend, args=(name, epochs, threads, theirs), daemon=True).start()
    times: dict[str, list[float]] = {name: [] for name in CONTENDERS}
    peaks: dict[str, float] = {}
    for turn in range(1 + turns):
        for name in list(wires):
            wires[name].send(True)
            answer = wires[name].recv()
            if isinstance(answer, str):
                print(f"{name} takes no part: {answer}")
                del wires[name]
            elif turn:  # in the first, threads start, pages are touched
                times[name] += answer[0]
                peaks[name] = answer[1]
    for wire in wires.values():
        wire.send(False)
    print(f"batch {BATCH}, {threads} threads of {os.cpu_count()}, {turns} turns of {epochs} epochs each")
    columns = "".join(f"{of:>15}{'ratio':>7}" for of in ("fastest tenth", "median", "mean"))
    print(f"{'ms a step':22}{columns}{'peak MB':>9}")
    usually = summary(times["the usual way"])
    for name in wires:
        pairs = zip(summary(times[name]), usually, strict=True)
        row = "".join(f"{own:15.2f}{other / own:7.2f}" for own, other in pairs)
        print(f"{name:22}{row}{peaks[name]:9.0f}")


def summary(times: list[float]) -> tuple[float, float, float]:
    """The tenth percentile, which a busy machine disturbs least, the median and the mean."""
    return statistics.quantiles(times, n=10)[0], statistics.median(times), statistics.mean(times)


# What a step cannot do without.


def show_floor(threads: int) -> None:
    """Count the arithmetic and the traffic of a step, time both on this machine, and add them up."""
    import torch

    import multipert as mp

    torch.set_num_threads(threads)
    data, p = kang(), mp.models.create("mtae").parameters
    genes, latent, values = len(data.genes), p.latent, BATCH * data.X.nnz / len(data)
    widths = [*p.hidden, latent, *reversed(p.hidden)]
    inner = sum(a * b for a, b in pairwise(widths))
    hidden = widths[-1]
    weights = genes * (widths[0] + hidden) + inner

    def fastest(do: Callable[[], object], repeats: int = 50) -> float:
        do()
        times = []
        for _ in range(repeats):
            started = time.perf_counter()
            do()
            times.append(time.perf_counter() - started)
        return min(times)

    wide = 2 * BATCH * hidden * genes  # one product; forward, and two for the gradients
    rates = {}
    for precision in (torch.float32, torch.bfloat16):
        h, w, g = (torch.rand(s).to(precision) for s in ((BATCH, hidden), (genes, hidden), (BATCH, genes)))
        rates[precision] = 3 * wide / sum(map(fastest, (lambda: h @ w.T, lambda: g @ w, lambda: g.T @ h)))  # noqa: B023
    parameter = torch.nn.Parameter(torch.rand(weights))
    parameter.grad = torch.rand(weights)
    adam = torch.optim.Adam([parameter], fused=True)
    traffic = 7 * 4 * weights  # value, gradient, two moments read; value, two moments written
    seconds = fastest(adam.step)
    print(
        f"batch {BATCH} x {genes} genes, {values:.0f} values a batch, {weights / 1e6:.2f} M weights, {threads} threads"
    )
    print(f"{'':44}{'GFLOP':>8}{'MB':>8}{'ms':>8}")
    for precision, rate in rates.items():
        name = f"output layer, three products in {str(precision)[6:]}"
        print(f"{name:44}{3 * wide / 1e9:8.3f}{'':8}{3000 * wide / rate:8.2f}   at {rate / 1e9:.0f} GFLOP/s")
    rate, sparse, small = rates[torch.float32], 4 * values * widths[0], 6 * BATCH * inner
    print(f"{'first layer, two products over the values':44}{sparse / 1e9:8.3f}{'':8}{1000 * sparse / rate:8.2f}")
    print(f"{'layers between, three products each':44}{small / 1e9:8.3f}{'':8}{1000 * small / rate:8.2f}")
    print(f"{'Adam: every weight, gradient and moment once':44}{'':8}{traffic / 1e6:8.1f}{1000 * seconds:8.2f}", end="")
    print(f"   at {traffic / seconds / 1e9:.0f} GB/s")
    for precision, of in rates.items():
        total = 3 * wide / of + (sparse + small) / rate + seconds
        print(f"{'floor in ' + str(precision)[6:]:44}{'':16}{1000 * total:8.2f}")


# Memory.


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

    mp.models.create("mtae")  # what is imported late is imported by now
    if what == "import":
        wire.send({"import": high_water_mb()})
        return
    keys = {"perturbation_key": "condition", "control": "control", "context_key": "cell_type"}
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
    """Print what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=15, help="turns of each contender, after a first one")
    parser.add_argument("--epochs", type=int, default=3, help="epochs counted in a turn")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="threads of each contender; all by default")
    parser.add_argument("--floor", action="store_true", help="count and time what a step cannot do without")
    parser.add_argument("--memory", action="store_true", help="measure the peak of a large fit")
    parser.add_argument("--cells", type=int, default=200_000, help="with --memory")
    parser.add_argument("--genes", type=int, default=7_000, help="with --memory")
    options = parser.parse_args()
    if options.memory:
        return show_memory(options.cells, options.genes)
    if options.floor:
        show_floor(options.threads)
    else:
        take_turns(options.turns, options.epochs, options.threads)
    return 0


if __name__ == "__main__":
    sys.exit(main())
