"""``multipert benchmark``: a whole study, in one command that goes on where it stopped."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from multipert.cli.keys import Scheduler, Workers, check_workers

if TYPE_CHECKING:
    from multipert.benchmark import Cost


def benchmark(
    study: Annotated[Path, typer.Argument(metavar="STUDY.toml", help="The study file.", show_default=False)],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Where results go; what is done there is kept.")],
    plan: Annotated[bool, typer.Option("--plan", help="Say how much there is to do, and do nothing.")] = False,
    workers: Workers = 1,
    scheduler: Scheduler = None,
    memory: Annotated[
        str | None,
        typer.Option(
            metavar="LIMIT",
            help="The most memory of each process, such as 1.5GiB: a trial that takes more is tried again once, then "
            "recorded as killed for memory.",
        ),
    ] = None,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Run failed trials again.")] = False,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
) -> None:
    """Run every trial of a study that is not done yet: data sets x models x held-out contexts x seeds."""
    from multipert.benchmark import estimate_costs, plan_study, read_study, run_study

    check_workers(workers, scheduler)
    if memory is not None:
        _check_memory(memory, scheduler)
    asked = plan_study(read_study(study), device=device, announce=lambda line: print(line, file=sys.stderr))
    missing = asked.missing(out, retry_failed=retry_failed)
    trials = asked.trials
    left = sum(job.folder == "trials" for job in missing)
    print(
        f"{asked.study.title}: {len(trials)} trials of {len(asked.models)} models on {len(asked.datasets)} data sets, "
        f"{len(trials) - left} of them done"
    )
    if plan:
        _print_estimate(estimate_costs(missing), workers)
        return
    try:
        complete = run_study(asked, out, workers=workers, scheduler=scheduler, retry_failed=retry_failed, memory=memory)
    except KeyboardInterrupt:
        print(f"\nstopped; what is done is in {out}: the same command goes on from there.", file=sys.stderr)
        raise typer.Exit(1) from None
    print(f"results: {(out / 'results.csv').resolve()}\nread them: multipert report {out} --out report.html")
    if not complete:
        print("some trials failed: `multipert report` says why, --retry-failed runs them again", file=sys.stderr)
        raise typer.Exit(1)


def _check_memory(limit: str, scheduler: str | None) -> None:
    from dask.utils import parse_bytes

    if scheduler is not None:
        raise typer.BadParameter("--memory is of processes on this machine; the workers of a cluster bring their own")
    try:
        if parse_bytes(limit) > 0:
            return
    except ValueError:
        pass
    raise typer.BadParameter(f"--memory takes an amount such as 1.5GiB, not {limit!r}")


def _print_estimate(costs: "dict[str, Cost]", workers: int) -> None:
    from multipert.benchmark import duration

    for what, cost in sorted(costs.items(), key=lambda item: -item[1].seconds):
        print(f"  {what:24} {duration(cost.seconds)}")
    total = sum(cost.seconds for cost in costs.values())
    shared = f", {duration(total / workers)} with {workers} workers" if workers > 1 else ""
    print(f"about {duration(total)} in one process{shared} (measured: one scoring, a few steps of each model)")
