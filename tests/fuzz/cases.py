"""One case: a number that stands for what is spoilt, what is done with it, and what the answer must be.

Whatever is accepted is compared with what plain code makes of the same file (:mod:`.plain`), or with what the sound
input gives.
"""

import io
import json
import os
import shutil
import sys
import tomllib
import warnings
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd

import multipert as mp
from fuzz import plain
from fuzz.mutations import Rng, choose, spoil_cells, spoil_json, spoil_one_of, spoil_study
from fuzz.world import KEYS, RUNS, World
from multipert.benchmark import plan_study, read_study
from multipert.cli import main
from multipert.data import read_cells
from multipert.models.run_folder import _seal

Reckoned = TypeVar("Reckoned")

REFUSED, ACCEPTED, WRONG, TRACEBACK, CRASH, TIMEOUT = OUTCOMES = (
    "refused in one sentence",
    "accepted, and right",
    "silently wrong",
    "traceback",
    "crash",
    "time-out",
)


class WrongAnswerError(AssertionError):
    """An answer that is not what it must be."""


@cache
def model(folder: Path) -> Any:
    """The model of a run, whatever its kind has learnt."""
    return mp.models.load(folder)


def command(*arguments: str | Path) -> bool:
    """Run the command line in this process; whether it was accepted. Raises what the user would see as a traceback."""
    out, err = io.StringIO(), io.StringIO()
    before, code = sys.argv, 0
    sys.argv = ["multipert", *map(str, arguments)]
    try:
        with redirect_stdout(out), redirect_stderr(err):
            main()
    except SystemExit as end:
        code = int(end.code or 0)
    finally:
        sys.argv = before
    said = [line for line in err.getvalue().splitlines() if line and not line.startswith("multipert: note: ")]
    if code == 2 and len(said) == 1 and said[0].startswith("multipert: "):
        raise mp.InputError(said[0])
    if code != 0 or "Traceback" in err.getvalue():
        raise RuntimeError(f"exit code {code}: " + " / ".join(said[-3:]))
    return True


def close(found: object, expected: object, what: str, *, atol: float = 2e-4) -> None:
    """Refuse an answer that is not the expected one."""
    a, b = np.asarray(found, dtype=np.float64), np.asarray(expected, dtype=np.float64)
    if a.shape != b.shape or not np.allclose(a, b, rtol=1e-3, atol=atol):
        apart = f"by {np.nanmax(np.abs(a - b)):.3g}" if a.shape == b.shape and a.size else f"{a.shape} not {b.shape}"
        raise WrongAnswerError(f"{what} differs: {apart}")


def reference(reckon: Callable[[], Reckoned]) -> Reckoned:
    """What plain code makes of a file that was accepted; a file it cannot read should have been refused."""
    try:
        return reckon()
    except Exception as error:
        raise WrongAnswerError(f"accepted, but plain code finds {type(error).__name__}: {error}") from error


# Cells, h5ad and zarr.


def spoilt(world: World, name: str, rng: Rng, to: Path) -> tuple[Path, str]:
    ending = choose(rng, (".h5ad", ".h5ad", "-plain.h5ad", "-plain.h5ad", ".zarr"))
    path = world.copy(f"{name}{ending}", to / f"{name}{'.zarr' if ending == '.zarr' else '.h5ad'}")
    return path, spoil_cells(path, rng)


ON_DISK = 0.3
"""Share of the cases in which cells are left in their file."""


def predicting(world: World, rng: Rng, to: Path) -> tuple[str, Callable[[], None]]:
    """Control cells, log-normalised or raw, to a mean shift."""
    path, done = spoilt(world, choose(rng, ("controls", "controls", "raw")), rng, to)
    by_command = rng.random() < 0.15
    on_disk = rng.random() < ON_DISK

    def go() -> None:
        run = world.folder / "runs" / "mean-shift"
        if on_disk:
            model(run).predict_to(to / "p.h5ad", path, "alpha", on_disk=True)
            found = read_cells(to / "p.h5ad").X.toarray()
        elif by_command:
            command("predict", run, "--cells", path, "--perturbation", "alpha", "--out", to / "p.h5ad")
            found = read_cells(to / "p.h5ad").X
        else:
            found = model(run).predict(path, "alpha").X
        fitted = model(run)
        shift = np.nanmean(fitted.learnt_["shifts"][fitted.metadata_.conditions.index("alpha")], axis=0)
        target = fitted.metadata_.preprocessing.target_sum
        genes = list(fitted.metadata_.genes)
        close(found, reference(lambda: plain.expected_prediction(path, genes, shift, target)), "the prediction")

    return f"predict: {done}", go


def fitting(world: World, rng: Rng, to: Path) -> tuple[str, Callable[[], None]]:
    """Training cells to a mean shift."""
    path, done = spoilt(world, "data", rng, to)
    on_disk = rng.random() < ON_DISK

    def go() -> None:
        data = mp.PerturbationData.from_anndata(path, **KEYS, on_disk=on_disk)
        fitted: Any = mp.models.create("mean-shift").fit(data)
        shifts, genes = reference(lambda: plain.expected_shifts(path))
        if list(fitted.metadata_.genes) != genes:
            raise WrongAnswerError("the genes differ")
        for (what, where), shift in shifts.items():
            try:
                at = data.conditions.index(what), data.contexts.index(where)
            except ValueError:
                raise WrongAnswerError(f"{what!r} in {where!r} is not known") from None
            close(fitted.learnt_["shifts"][at], shift, f"the shift of {what!r} in {where!r}")

    return f"fit: {done}", go


def preprocessing(world: World, rng: Rng, to: Path) -> tuple[str, Callable[[], None]]:
    """Raw counts."""
    path, done = spoilt(world, "counts", rng, to)

    def go() -> None:
        made = mp.preprocess(read_cells(path), min_counts=0, min_genes=0, min_cells=0, n_top_genes=None)
        close(made.X.toarray(), reference(lambda: plain.expected_preprocessed(path)), "what was preprocessed")

    return f"preprocess: {done}", go


def evaluating(world: World, rng: Rng, to: Path) -> tuple[str, Callable[[], None]]:
    """Three files, one of them spoilt: mostly the prediction."""
    role = choose(rng, ("predicted", "predicted", "predicted", "truth", "controls"))
    path, done = spoilt(world, role, rng, to)
    files = {one: world.folder / f"{one}.h5ad" for one in ("controls", "truth", "predicted")} | {role: path}
    by_command = rng.random() < 0.05

    def go() -> None:
        control, truth, predicted = files.values()
        if by_command:
            out = to / "scores.csv"
            command("evaluate", "--control", control, "--truth", truth, "--predicted", predicted, "--out", out)
            found, crossed = pd.read_csv(out).iloc[0], True
        else:
            found = mp.evaluate(control=control, truth=truth, predicted=predicted, metrics=["mse", "pearson_delta"])
            crossed = "crossed" in str(found.attrs["notes"])
        expected = reference(lambda: plain.expected_scores(control, truth, predicted))
        close(found["mse"], expected["mse"], "mse", atol=1e-6)
        if not crossed:
            close(found["pearson_delta"], expected["pearson_delta"], "pearson_delta", atol=1e-3)

    return f"evaluate: {done}", go


# Study files.


def studying(world: World, rng: Rng, to: Path) -> tuple[str, Callable[[], None]]:
    """A study, read and planned."""
    for name in ("data.h5ad", "counts.h5ad"):
        if not (to / name).exists():
            os.symlink(world.folder / name, to / name)
    content, done = spoil_study((world.folder / "study.toml").read_text(), rng)
    path = to / "study.toml"
    path.write_bytes(content)

    def go() -> None:
        trials = len(plan_study(read_study(path)).trials)
        asked = tomllib.loads(path.read_text(encoding="utf-8-sig"))
        n_contexts = sum(
            len(one.get("held_out", one.get("simulate", {}).get("contexts", "ABC"))) for one in asked["datasets"]
        )
        expected = n_contexts * len(asked["models"]) * len(asked.get("seeds", [1]))
        if trials != expected:
            raise WrongAnswerError(f"{trials} trials are planned where the file asks for {expected}")

    return f"study: {done}", go


# Run folders.


def loading(world: World, rng: Rng, to: Path) -> tuple[str, Callable[[], None]]:
    """A run, spoilt: its bytes, or a field of its records, sealed again as if it had been meant."""
    name = choose(rng, RUNS)
    run = world.copy(f"runs/{name}", to / "run")
    sealed = rng.random() < 0.6
    meant = False
    if sealed:
        file = choose(rng, ("model.json", "model.json", "run.json"))
        record, done = spoil_json(json.loads((run / file).read_text()), rng)
        if file == "model.json" and isinstance(record, dict):
            meant = True
            record["checksum"] = _seal(record, (run / "model.safetensors").read_bytes())
        (run / file).write_text(json.dumps(record))
        done = f"{file} {done}"
    else:
        done = spoil_one_of(run, rng)
    by_command = rng.random() < 0.1

    def go() -> None:
        controls = world.folder / "controls.h5ad"
        if by_command:
            command("predict", run, "--cells", controls, "--all", "--out", to / "p.h5ad")
            found = read_cells(to / "p.h5ad").X
        else:
            loaded = mp.models.load(run)
            found = loaded.predict(controls, "all").X
        if not np.isfinite(found).all() or found.min() < 0:
            raise WrongAnswerError("the prediction is not finite, or negative")
        # A seed, a scale, a name that somebody changed on purpose and sealed gives what it says, not what it was.
        if not meant:
            close(found, world.answers[name], "the prediction")

    return f"run of {name}: {done}", go


KINDS: dict[str, tuple[Callable[[World, Rng, Path], tuple[str, Callable[[], None]]], float]] = {
    "cells to predict from": (predicting, 0.22),
    "cells to fit": (fitting, 0.16),
    "counts to preprocess": (preprocessing, 0.12),
    "cells to evaluate": (evaluating, 0.15),
    "study files": (studying, 0.15),
    "run folders": (loading, 0.2),
}
"""What is spoilt: how, and which share of the cases."""


def do(world: World, number: int, seed: int, to: Path) -> tuple[str, str, str, str]:
    """Do a case: its kind, what was spoilt, the outcome, and what there is to say of it."""
    rng = np.random.default_rng((seed, number))
    kind = str(rng.choice(list(KINDS), p=[share for _, share in KINDS.values()]))
    shutil.rmtree(to, ignore_errors=True)
    to.mkdir(parents=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        done, go = KINDS[kind][0](world, rng, to)
        (to / "spoilt.json").write_text(json.dumps([kind, done]))  # for whoever finds this process dead
        # What the command prints as a warning of NumPy's is a mistake of ours.
        warnings.filterwarnings("error", category=RuntimeWarning, module="multipert")
        try:
            go()
        except mp.InputError as error:
            sentence = str(error)
            if "\n" in sentence.strip() or not sentence.strip():
                return kind, done, TRACEBACK, f"refused, but not in one sentence: {sentence!r}"
            return kind, done, REFUSED, sentence
        except WrongAnswerError as error:
            return kind, done, WRONG, str(error)
        except BaseException as error:
            return kind, done, TRACEBACK, where(error)
    return kind, done, ACCEPTED, ""


def where(error: BaseException) -> str:
    """An error, and the lines of the package it passed."""
    import traceback

    frames = [one for one in traceback.extract_tb(error.__traceback__) if "multipert" in one.filename]
    passed = " < ".join(f"{Path(one.filename).name}:{one.lineno}" for one in reversed(frames[-3:]))
    return f"{type(error).__name__}: {str(error)[:200]} ({passed})"
