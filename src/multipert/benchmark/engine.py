"""The engines that run a study: this process, workers on this machine, or any Dask cluster.

Whatever runs a job, its record is written here, whole or not at all, as soon as it is done: a benchmark that dies
loses the jobs in flight and no more.
"""

import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from multipert.benchmark.jobs import FitJob, Job, TrialJob, Work, run_together
from multipert.benchmark.plan import Plan
from multipert.benchmark.progress import BenchmarkProgress
from multipert.benchmark.records import TrialResult, write_record
from multipert.benchmark.results import load_results, write_tables
from multipert.benchmark.search_trial import SearchTrial
from multipert.data import only_writer
from multipert.errors import InputError
from multipert.models import fits_at_once
from multipert.process import FREED, WAITING, own_process

if TYPE_CHECKING:
    from distributed import Client

W = TypeVar("W", bound=Work)

Ended: TypeAlias = tuple[W, Any, str]
"""A piece of work, what came of it (of a job, its record), and what went wrong where nothing did."""

PATIENCE = 30
"""Seconds to wait for a cluster to answer."""

_SAYS_WHY = 5  # seconds within which a nanny says why it ended a worker

ANY_GPU = ("auto", "cuda")
"""Devices that stand for whichever GPU there is."""

_one_at_a_time = threading.Lock()


def run_study(
    plan: Plan,
    folder: Path,
    *,
    workers: int = 1,
    scheduler: str | None = None,
    retry_failed: bool = False,
    memory: str | None = None,
) -> bool:
    """Do what is missing of a study, and write its tables.

    Parameters
    ----------
    plan
        The study.
    folder
        The benchmark directory; what is done there already is not done again.
    workers
        Processes on this machine; with one, everything happens in this one.
    scheduler
        Address of a Dask scheduler, whose workers do the work in place of this machine.
    retry_failed
        Whether trials that failed are run again.
    memory
        The most memory of each process on this machine, such as ``"1.5GiB"``. One that takes more is ended; its work is
        tried once more, and then recorded as failed, killed for memory.

    Returns
    -------
    bool
        Whether every trial of the study is done and none failed.

    Raises
    ------
    InputError
        The folder cannot be written, another process is writing there, or no cluster answers at the address.
    KeyboardInterrupt
        On Ctrl-C: what is done is kept, and the tables are written.
    """
    plan.write(folder)
    with only_writer(folder):
        return _run_missing(plan, folder, workers, scheduler, retry_failed, memory)


def _run_missing(
    plan: Plan, folder: Path, workers: int, scheduler: str | None, retry_failed: bool, memory: str | None
) -> bool:
    _sweep(folder)
    jobs = plan.missing(folder, retry_failed=retry_failed)
    trials = sum(isinstance(job, TrialJob) for job in jobs)
    try:
        with (
            _engine(workers, scheduler, jobs, memory) as (run, at_once),
            BenchmarkProgress(len(jobs), trials, at_once) as shown,
        ):
            for job, record, problem in run(jobs):
                if record is not None:
                    write_record(folder / job.file, record)
                else:
                    shown.say(f"{job.folder} of {job.dataset.name}: {problem}")
                shown.done(job, record)
    finally:
        results = load_results(folder)
        write_tables(results, folder)
    return all(trial.status == "done" for trial in results.trials) and len(results.trials) == results.planned


@contextmanager
def _engine(
    workers: int, scheduler: str | None, jobs: Sequence[Job], memory: str | None
) -> Iterator[tuple[Callable[[Sequence[Job]], Iterator[Ended[Job]]], int]]:
    """The way to run jobs, and how many run at a time."""
    if not jobs or (scheduler is None and workers == 1 and memory is None):
        yield _here, 1
        return
    with _cluster(workers, scheduler, memory) as client:
        at_once = len(client.nthreads())
        gpus = 0 if scheduler is not None else _gpus(jobs)
        yield (lambda jobs: spread(client, grouped(jobs, _worth) if gpus else ([job] for job in jobs), gpus)), at_once


@contextmanager
def engine_on_demand(
    workers: int, scheduler: str | None, device: str
) -> Iterator[Callable[[Iterator[W]], Iterator[Ended[W]]]]:
    """The way to run work that is thought of only when there is room for it."""
    if scheduler is None and workers == 1:
        yield lambda work: map(attempt, work)
        return
    with _cluster(workers, scheduler) as client:
        gpus = _here_gpus() if scheduler is None and device in ANY_GPU else 0
        waiting = int(scheduler is not None)  # one piece, from which a cluster that adapts knows that it is to grow

        def at_once() -> int:
            return len(client.nthreads()) + waiting

        yield lambda work: spread(client, ([one] for one in work), gpus, at_once)


def _here(jobs: Sequence[Job]) -> Iterator[Ended[Job]]:
    """Run jobs in this process."""
    for group in grouped(jobs, _worth):
        yield from attempt_together(group)


def grouped(jobs: Sequence[Job], at_once: Callable[[FitJob], int]) -> Iterator[Sequence[Job]]:
    """The jobs in their order; trials that can be trained as one, together.

    Parameters
    ----------
    jobs
        What is to be done.
    at_once
        How many trials like this one are worth training as one.
    """
    alike: dict[str, list[FitJob]] = {}
    for job in jobs:
        if isinstance(job, FitJob):
            alike.setdefault(job.batch_key, []).append(job)
    for job in jobs:
        if not isinstance(job, FitJob):
            yield [job]
        elif job.batch_key in alike:  # else it went with the first of its batch
            trials = alike.pop(job.batch_key)
            size = at_once(job) if len(trials) > 1 else 1
            yield from (trials[start : start + size] for start in range(0, len(trials), size))


def _worth(trial: FitJob) -> int:
    """How many trials like this one the device profits from training as one."""
    try:
        return fits_at_once(trial.create(), trial.data(), device=trial.device)
    except Exception:  # whatever is wrong is the trial's to report
        return 1


@contextmanager
def _cluster(workers: int, scheduler: str | None, memory: str | None = None) -> Iterator["Client"]:
    """Dask workers: at an address, or started on this machine."""
    import dask
    from distributed import Client, LocalCluster

    if scheduler is not None:
        try:
            client = Client(scheduler, timeout=PATIENCE)
        except (OSError, ValueError) as error:
            raise InputError(
                f"no Dask scheduler answers at {scheduler!r} ({error}): start one with `dask scheduler`, and give the "
                f"address it prints"
            ) from error
        logging.getLogger("distributed.client").setLevel(logging.CRITICAL)  # a scheduler that is gone is ours to tell
        with client:
            client.wait_for_workers(1, timeout=PATIENCE)
            yield client
        return
    threads = max(1, (os.cpu_count() or 1) // workers)
    # The arithmetic's threads are set before a worker starts, or the libraries would each take all processors.
    environment = {name: str(threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
    environment |= WAITING
    settings: dict[str, Any] = {"distributed.nanny.pre-spawn-environ": environment}
    if memory is not None:
        environment |= FREED
        # A worker is ended when it takes too much; until then it is let be.
        settings |= {f"distributed.worker.memory.{at}": False for at in ("target", "spill", "pause")}
        settings["distributed.scheduler.allowed-failures"] = 1
    with dask.config.set(settings):
        with _deaf_to_ctrl_c():
            cluster = LocalCluster(
                n_workers=workers,
                threads_per_worker=1,
                memory_limit=memory or 0,
                dashboard_address="127.0.0.1:0",  # any free port: with none named, two studies at once quarrel over one
                silence_logs=logging.CRITICAL,
            )
        with cluster, Client(cluster) as client:
            try:
                yield client
            except BaseException:
                # No work in hand is worth waiting for, and an orderly end would be a noisy one.
                for nanny in cluster.workers.values():
                    nanny.auto_restart = False
                    with suppress(OSError, TypeError):  # it is no more
                        os.kill(nanny.pid, signal.SIGKILL if hasattr(signal, "SIGKILL") else signal.SIGTERM)
                raise


@contextmanager
def _deaf_to_ctrl_c() -> Iterator[None]:
    """Processes and threads that are started here, and all that these start, do not hear Ctrl-C: it is ours alone."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _gpus(jobs: Sequence[Job]) -> int:
    """How many GPUs there are to deal out: those of this machine, unless the jobs name their device."""
    return _here_gpus() if any(isinstance(job, FitJob) and job.device in ANY_GPU for job in jobs) else 0


def _here_gpus() -> int:
    import torch

    return torch.cuda.device_count()


def spread(
    client: "Client", groups: Iterable[Sequence[W]], gpus: int, at_once: Callable[[], int] | None = None
) -> Iterator[Ended[W]]:
    """Run work on a cluster, each group on one worker; that of a worker that dies runs again on another.

    With ``at_once``, no more groups than it says are taken at a time: further ones once others have ended.
    """
    from distributed import as_completed

    coming = iter(groups)
    pending: dict[Any, Sequence[W]] = {}

    def submit() -> list[Any]:
        room = None if at_once is None else max(not pending, at_once() - len(pending))
        more = {
            client.submit(attempt_on_worker, group, gpus, key=group[0].file, pure=False): group
            for group in islice(coming, room)
        }
        pending.update(more)
        return list(more)

    ended = as_completed(submit())
    for future in ended:
        group = pending.pop(future)
        try:
            yield from future.result()
        except Exception as error:  # a worker died every time, or the cluster is gone
            if client.status != "running":
                raise InputError("the Dask scheduler is gone: the same command goes on from here") from error
            yield from (_failure(job, _cause(client, error)) for job in group)
        ended.update(submit())


def _cause(client: "Client", error: Exception) -> Exception:
    """What a worker died of, where its nanny says that it took too much memory."""
    # Dask's KilledWorker names the last worker that it died on.
    address = getattr(getattr(error, "last_worker", None), "address", None)
    if address is None:
        return error
    until = time.monotonic() + _SAYS_WHY
    while time.monotonic() < until:
        for _, event in client.get_events("worker-restart-memory"):
            if event["worker"] == address:
                return MemoryError(
                    f"killed for memory: its process held {event['rss'] / 2**30:.1f} GiB, near all that it may; give "
                    "workers more, or leave cells on disk (on_disk = true in the study)"
                )
        time.sleep(0.1)
    return error


def attempt_on_worker(jobs: Sequence[W], gpus: int) -> list[Ended[W]]:
    """Do jobs in a worker; where there are GPUs to choose from, they are dealt out to the workers in turn."""
    from distributed import get_worker

    own_process()
    own = [on_gpu(job, int(get_worker().name) % gpus) for job in jobs] if gpus else jobs
    return [(job, record, problem) for job, (_, record, problem) in zip(jobs, attempt_together(own), strict=True)]


def on_gpu(job: W, number: int) -> W:
    """The job on one of the GPUs, unless it names its device."""
    trains = isinstance(job, FitJob | SearchTrial) and job.device in ANY_GPU
    return replace(job, device=f"cuda:{number}") if trains else job  # type: ignore[type-var]


def attempt(job: W) -> Ended[W]:
    """Do a job; what goes wrong is a result too.

    One at a time in a process, so that a worker with several threads gives all of them to one job's arithmetic.
    """
    with _one_at_a_time:
        try:
            return job, job.run(), ""
        except Exception as error:
            return _failure(job, error)


def attempt_together(jobs: Sequence[W]) -> Iterator[Ended[W]]:
    """Do jobs: several are trials that are trained as one. Those that cannot be are done one by one."""
    results: Sequence[TrialResult] = ()
    if len(jobs) > 1:
        with _one_at_a_time, suppress(Exception):  # of several the one at fault shows alone
            results = run_together([job for job in jobs if isinstance(job, FitJob)])
    if results:
        yield from ((job, result, "") for job, result in zip(jobs, results, strict=True))
    else:
        yield from map(attempt, jobs)


def _failure(job: W, error: Exception) -> Ended[W]:
    return job, job.failed(error) if isinstance(job, TrialJob) else None, f"{type(error).__name__}: {error}"


def _sweep(folder: Path) -> None:
    """Remove what a killed run left half written."""
    for left in [*folder.rglob(".*.json"), *folder.rglob(".*.npz")]:
        left.unlink(missing_ok=True)
