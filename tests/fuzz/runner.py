"""Cases in children of this process, each with a limit of time and memory; a child that dies is one case's doing."""

import faulthandler
import gc
import json
import os
import re
import resource
import select
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import h5py

from fuzz.cases import ACCEPTED, CRASH, KINDS, OUTCOMES, REFUSED, TIMEOUT, do
from fuzz.world import World

SECONDS, PATIENCE = 10.0, 120.0
"""Of computing that a case may take (a sound one takes a tenth of one), and of waiting for something, not computing."""

MEMORY = 4 * 2**30
"""Bytes of address space that a child may have, what the libraries map among them."""

BATCH = 200
"""Cases of one child."""

FINE = (REFUSED, ACCEPTED)


@dataclass(frozen=True)
class Result:
    """How a case went."""

    number: int
    kind: str
    spoilt: str
    outcome: str
    said: str


def run(folder: Path, cases: range, seed: int, *, until: float = float("inf")) -> Iterator[Result]:
    """Do cases in a folder; stop early once the clock (``time.monotonic``) is at ``until``."""
    # This process makes nothing itself: threads that a library starts here would be missing in the children.
    child = os.fork()
    if child == 0:
        try:
            World.make(folder / "world")
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    world = World.read(folder / "world")
    next_case = cases.start
    while next_case < cases.stop and time.monotonic() < until:
        batch = range(next_case, min(next_case + BATCH, cases.stop))
        for result in _in_child(world, folder, batch, seed):
            next_case = result.number + 1
            yield result
            if time.monotonic() > until:
                return


def _in_child(world: World, folder: Path, batch: range, seed: int) -> Iterator[Result]:
    """Do cases in one child, up to the first that ends it."""
    reads, writes = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reads)
        _work(world, folder, batch, seed, writes)
    os.close(writes)
    number, text = batch.start, ""
    try:
        for number in batch:
            moved, before = time.monotonic(), _seconds_used(child)
            used = before
            while "\n" not in text:
                ready, _, _ = select.select([reads], [], [], 1.0)
                if not ready:
                    now = _seconds_used(child)
                    if now > used:
                        moved, used = time.monotonic(), now
                    if now - before > SECONDS or time.monotonic() - moved > PATIENCE:
                        yield _ended(folder, number, TIMEOUT, _whereabouts(child, folder))
                        return
                    continue
                read = os.read(reads, 2**16)
                if not read:
                    _, status = os.waitpid(child, 0)
                    child = 0
                    if status == 0:  # it asked for a successor
                        return
                    yield _ended(folder, number, CRASH, f"{_cause(status)}: {_passed(folder)}")
                    return
                text += read.decode()
            line, _, text = text.partition("\n")
            yield Result(*json.loads(line))
    finally:
        os.close(reads)
        if child:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)


def _work(world: World, folder: Path, batch: range, seed: int, writes: int) -> None:
    """What the child does; it never returns."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 1)
    os.dup2(quiet, 2)
    told = (folder / "whereabouts.txt").open("w")
    faulthandler.register(signal.SIGUSR1, told, all_threads=False)
    faulthandler.enable(told, all_threads=False)
    gc.collect()
    gc.freeze()
    try:
        for number in batch:
            kind, spoilt, outcome, said = do(world, number, seed, folder / "case")
            line = json.dumps([number, kind, spoilt, outcome, said]) + "\n"
            os.write(writes, line.encode("ascii"))
            if _h5py_is_locked():
                break
    except BaseException:
        os._exit(1)
    os._exit(0)


def _h5py_is_locked() -> bool:
    """Whether a damaged file left h5py's own lock taken: a thread of zarr's would wait for it for ever."""
    free = threading.Event()

    def take() -> None:
        with h5py._objects.phil:
            free.set()

    threading.Thread(target=take, daemon=True).start()
    return not free.wait(5.0)


def _ended(folder: Path, number: int, outcome: str, said: str) -> Result:
    """A case that ended its child: what it was is left in the file beside it."""
    told = folder / "case" / "spoilt.json"
    kind, spoilt = json.loads(told.read_text()) if told.exists() else ("?", "?")
    return Result(number, kind, spoilt, outcome, said)


def _whereabouts(child: int, folder: Path) -> str:
    """Where a child is, the innermost first."""
    os.kill(child, signal.SIGUSR1)
    time.sleep(0.5)
    return "still at it: " + _passed(folder)


def _passed(folder: Path) -> str:
    """The lines that a child said it was in."""
    frames = re.findall(r'File "(?:[^"]*/)?([^"/]+)", line (\d+)', (folder / "whereabouts.txt").read_text())
    return " < ".join(f"{name}:{line}" for name, line in frames[:12])


def _seconds_used(process: int) -> float:
    """Seconds of computing that a process has used."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _cause(status: int) -> str:
    if os.WIFSIGNALED(status):
        return signal.Signals(os.WTERMSIG(status)).name
    return f"exit code {os.WEXITSTATUS(status)}"


def table(results: list[Result]) -> str:
    """Outcomes by what was spoilt."""
    counts = Counter((result.kind, result.outcome) for result in results)
    width = max(map(len, KINDS))
    lines = [f"{'':{width}}" + "".join(f"  {outcome:>{len(outcome)}}" for outcome in OUTCOMES)]
    for kind in [*KINDS, "?"]:
        if any(of == kind for of, _ in counts):
            lines.append(f"{kind:{width}}" + "".join(f"  {counts[kind, one]:{len(one)},}" for one in OUTCOMES))
    total = Counter(result.outcome for result in results)
    lines.append(f"{'all':{width}}" + "".join(f"  {total[one]:{len(one)},}" for one in OUTCOMES))
    return "\n".join(lines)
