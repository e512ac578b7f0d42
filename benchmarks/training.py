"""Time a training step of MTAe beside the usual implementation of the same network, on the same real cells.

    python -m benchmarks.training                    # ms a step: ours, the usual way, SCVI where it is installed
    python -m benchmarks.training --without          # what each part that buys speed gains: ours without it
    python -m benchmarks.training --beside 2         # the same while two other processes are busy
    python -m benchmarks.training --floor            # what a step cannot do without, counted and timed on this machine

Every contender trains in a process of its own and they take turns, so that whatever else the machine does disturbs all
alike, and each has its own peak of memory. All see the same cells in batches of the same size, and use the same number
of threads. A step lasts until the next one begins: gathering the batch, the losses' record and, between epochs, the
shuffling are all in it. A turn is a few epochs; the steps of its first are not counted. On a machine that is busy
otherwise look at the fastest tenth: Linux is asked to let contenders compute in long pieces, so that some steps are not
interrupted; or count what the processor worked for a step (``--threads 1 --processor``).
"""

import argparse
import ctypes
import importlib
import multiprocessing
import os
import platform
import resource
import statistics
import struct
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from multipert.training import Precision

BATCH = 64
NETWORK: dict[str, Any] = {"film_hidden": ()}
"""What differs from MTAe's default sizes: the study gives FiLM no hidden layer for one perturbation."""

OURS, USUAL, WITHOUT = "multipert", "the usual way", "without "

Turns = Iterator[list[float]]
"""Milliseconds of each step, turn after turn."""

clock = time.perf_counter


# The contenders.


def ours(precision: "Precision", epochs: int) -> Turns:
    """``fit`` as it is where it is long: what is compiled is compiled in the first turn, which is not counted."""
    from multipert.models.mtae import MTAe
    from multipert.training import trainer

    trainer.WORTH_COMPILING = 0
    starts: list[float] = []

    class Clocked(MTAe):
        def _loss(self, *arguments: Any) -> Any:
            if not starts:
                compute_in_long_pieces()
            starts.append(clock())
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

    compute_in_long_pieces()
    while True:
        starts = []
        for _ in range(1 + epochs):
            for x, condition in loader:
                starts.append(clock())
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
            self.starts.append(clock())

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
    OURS: lambda epochs: ours("auto", epochs),
    f"{OURS}, float32": lambda epochs: ours("float32", epochs),
    USUAL: usual,
    "scvi-tools SCVI": scvi,
}


def compute_in_long_pieces() -> None:
    """Ask Linux to take the processor from this thread after 100 ms, not after 3; its share of it stays the same."""
    number = {"x86_64": 314, "aarch64": 274}.get(platform.machine())
    if sys.platform == "linux" and number:
        attributes = struct.pack("IIQiIQQQ", 48, 0, 0, os.getpriority(os.PRIO_PROCESS, 0), 0, 10**8, 0, 0)
        ctypes.CDLL(None).syscall(number, 0, attributes, 0)  # sched_setattr


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


# What buys speed, and how to do without it.


def leave_out(piece: str) -> Callable[[], None]:
    """Do without one of the pieces that the package knows itself."""

    def do() -> None:
        from multipert.training import acceleration

        acceleration.leave_out({piece})

    return do


def adam_as_it_comes() -> None:
    """Let ``torch.optim.Adam`` move the parameters, as it comes."""
    import torch

    from multipert.training import trainer

    class Adam:
        def __init__(
            self, parameters: Sequence[Any], lr: float, betas: Any, epsilon: float, weight_decay: float
        ) -> None:
            self.parameters, self.lr = parameters, lr
            self.adam = torch.optim.Adam(parameters, lr, betas, epsilon, weight_decay)

        def step(self, rate: float) -> None:
            self.adam.param_groups[0]["lr"] = self.lr * rate
            self.adam.step()
            self.adam.zero_grad()

    trainer.__dict__["FusedAdam"] = Adam


def one_batch_at_a_time() -> None:
    """Gather the cells of a batch when it is wanted."""
    from multipert.training import loading

    loading.GATHERED_AT_ONCE = 1


PARTS: dict[str, Callable[[], None]] = {
    "sparse-input": leave_out("sparse-input"),
    "sparse-loss": leave_out("sparse-loss"),
    "bfloat16-output": leave_out("bfloat16-output"),
    "compiled-loops": leave_out("compiled-loops"),
    "fused-adam": adam_as_it_comes,
    "gathering-ahead": one_batch_at_a_time,
    "kept-memory": lambda: None,  # never switched on: see settle
    "passive-waiting": lambda: None,
}
"""What buys speed, each with what has to be done to do without."""


def settle(left_out: str) -> None:
    """Make this process our own, as the command line and its workers do, but for what is left out."""
    from multipert import process

    if left_out == "kept-memory":
        os.environ.update(process.WAITING)
        return
    process.own_process()
    if left_out == "passive-waiting":
        del os.environ["OMP_WAIT_POLICY"]


# Taking turns.


@contextmanager
def busy(number: int) -> Iterator[None]:
    """Keep so many processes busy meanwhile."""
    spinning = [multiprocessing.get_context("spawn").Process(target=spin, daemon=True) for _ in range(number)]
    for process in spinning:
        process.start()
    yield
    for process in spinning:
        process.terminate()


def spin() -> None:
    """Compute without end."""
    number = 1
    while True:
        number = number * 1103515245 % 2147483647


def peak_mb() -> float:
    """The most memory this process ever held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def attend(name: str, epochs: int, threads: int, processor: bool, wire: Connection) -> None:
    """Train a turn each time one is asked for; answer with the milliseconds a step, and the peak of memory so far."""
    global clock
    clock = time.process_time if processor else time.perf_counter
    left_out = name.removeprefix(WITHOUT) if name.startswith(WITHOUT) else ""
    if name.startswith((OURS, WITHOUT)):
        settle(left_out)
    import torch

    torch.set_num_threads(threads)
    sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115 (what others print while they train)
    if left_out:
        PARTS[left_out]()
    turns = CONTENDERS[OURS if left_out else name](epochs)
    while wire.recv():
        try:
            wire.send((next(turns), peak_mb()))
        except ImportError as error:
            wire.send(str(error))
            return


def take_turns(contenders: Sequence[str], options: argparse.Namespace) -> None:
    """Print milliseconds a step, ratio to the usual way and peak of every contender."""
    context = multiprocessing.get_context("spawn")
    wires: dict[str, Connection] = {}
    for name in contenders:
        wires[name], theirs = context.Pipe()
        told = (name, options.epochs, options.threads, options.processor, theirs)
        context.Process(target=attend, args=told, daemon=True).start()
    times: dict[str, list[float]] = {name: [] for name in contenders}
    peaks: dict[str, float] = {}
    for turn in range(1 + options.turns):
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
    beside = f", beside {options.beside} busy processes" if options.beside else ""
    print(f"batch {BATCH}, {options.threads} threads of {os.cpu_count()}{beside}; {options.turns} turns of", end=" ")
    print(f"{options.epochs} epochs each; {'processor' if options.processor else 'elapsed'} time")
    columns = "".join(f"{of:>15}{'ratio':>7}" for of in ("fastest tenth", "median", "mean"))
    print(f"{'ms a step':24}{columns}{'peak MB':>9}  fastest steps are longer by")
    usually, whole = (summary(times[name]) for name in (USUAL, OURS))
    for name in wires:
        own = summary(times[name])
        row = "".join(f"{one:15.2f}{other / one:7.2f}" for one, other in zip(own, usually, strict=True))
        longer = f"{own[0] / whole[0] - 1:8.0%}" if name.startswith(WITHOUT) else ""
        print(f"{name:24}{row}{peaks[name]:9.0f}{longer}")


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


def main() -> int:
    """Print what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=15, help="turns of each contender, after a first one")
    parser.add_argument("--epochs", type=int, default=3, help="epochs counted in a turn")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="threads of each contender; all by default")
    parser.add_argument(
        "--without",
        nargs="*",
        choices=PARTS,
        metavar="NAME",
        help=f"time steps without these parts too, one at a time; all where none is named: {', '.join(PARTS)}",
    )
    parser.add_argument("--beside", type=int, default=0, metavar="N", help="keep N processes busy meanwhile")
    parser.add_argument(
        "--processor", action="store_true", help="count processor time: with one thread, on busy machines"
    )
    parser.add_argument("--floor", action="store_true", help="count and time what a step cannot do without")
    options = parser.parse_args()
    if options.floor:
        show_floor(options.threads)
        return 0
    contenders = [*CONTENDERS]
    if options.without is not None:
        contenders = [OURS, USUAL, *(f"{WITHOUT}{name}" for name in options.without or PARTS)]
    with busy(options.beside):
        take_turns(contenders, options)
    return 0


if __name__ == "__main__":
    sys.exit(main())
