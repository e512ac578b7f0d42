"""What each part of mtcell's mean step is worth.

python -m benchmarks.ablation

Every context is left out in turn and its mean predicted from the others. Printed is the squared error over that of no
change, sampling noise of the truth taken off both, summed over contexts and perturbations: for the baseline ``linear``,
for all parts, without the correction by trees, without that and some of the terms too, and without trees but with a
term that was tried and is not kept.
"""

import argparse
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from unittest.mock import patch

import numpy as np
import numpy.typing as npt
import pandas as pd

import multipert as mp
from benchmarks.split import DATA
from multipert.models import correction, transfer
from multipert.models.mtcell import MTCell
from multipert.models.transfer import PRIOR, Contexts, ridge_weights, softmax_weights, terms
from multipert.process import own_process

Doubles = npt.NDArray[np.float64]
LEFT_OUT = {
    "correction": (),
    "similar, nearest": ("similar", "nearest"),
    "linear": ("linear", "linear, light penalty"),
    "strong": ("strong",),
    "proportional": ("proportional", "common level", "falls in proportion"),
    "floor": ("floor",),
    "unlike others": ("unlike others",),
    "control noise": ("control noise", "control noise, all contexts"),
}


def contexts_of(data: mp.PerturbationData) -> list[Contexts]:
    """What is known of each perturbation that two contexts or more were seen with."""
    model = MTCell().fit(data)
    seen = [(c, model._seen(c)) for c in range(1, len(data.conditions))]
    return [model._contexts("mean", condition, contexts) for condition, contexts in seen if len(contexts) > 1]


def low_rank(guesses: Doubles, control: Doubles, others: Contexts) -> Doubles:
    """The shift of similar contexts, of which only what genes do together is kept (singular values beyond noise)."""
    shifts, noise = others.perturbed - others.control, others.perturbed_noise + others.control_noise
    scale = np.sqrt(noise.mean(axis=0) + 1e-6)
    left, sizes, right = np.linalg.svd(shifts / scale, full_matrices=False)
    by_chance = np.sqrt(shifts.shape[0]) + np.sqrt(shifts.shape[1])
    kept = sizes * np.maximum(1 - (by_chance / np.maximum(sizes, 1e-12)) ** 2, 0)
    shift: Doubles = softmax_weights(control, others.control, 10.0) @ (left * kept) @ right * scale
    return shift


def strong_nearest(guesses: Doubles, control: Doubles, others: Contexts) -> Doubles:
    """What responds strongly in the nearest context does so here (see the term *strong*)."""
    shift = guesses[:, list(PRIOR).index("nearest")]
    square = shift**2
    strong: Doubles = shift * square / np.maximum(square + square @ square / max(square.sum(), 1e-300), 1e-300)
    return strong


Tried = Callable[[Doubles, Doubles, Contexts], Doubles]
TRIED: Mapping[str, Tried] = {"low rank": low_rank, "strong, nearest": strong_nearest}
"""Terms that are not kept: from the terms' guesses, control means and the other contexts to another guess, (genes,)."""


def error(
    everywhere: Sequence[Contexts], missing: Sequence[str] = (), *, corrected: bool = False, more: Tried | None = None
) -> float:
    """Relative squared error without some of the terms, or with one more."""
    tried = [] if more is None else [more]
    kept = np.array([name not in missing for name in PRIOR])
    masks = {"ALIKE": transfer.ALIKE, "STRONG": transfer.STRONG, "OF_NOISE": transfer.OF_NOISE}
    patched: dict[str, Any] = {name: np.append(mask, np.zeros(len(tried), dtype=bool)) for name, mask in masks.items()}
    patched["PRIOR"] = PRIOR | {one.__name__: 0.0 for one in tried}

    def some(control: Doubles, noise: Doubles, others: Contexts) -> Doubles:
        left: Doubles = terms(control, noise, others) * kept
        return np.column_stack([left, *(one(left, control, others) for one in tried)])

    missed = response = 0.0
    with patch.multiple(transfer, terms=some, **patched):
        for left_out in range(max(map(len, everywhere))):
            training = [contexts.without(left_out) for contexts in everywhere]
            known = [transfer.leave_each_out(others) for others in training]
            coefficients = transfer.stack(known) if any(known) else transfer.from_one(training)
            trees = correction.correct(known, coefficients) if corrected else correction.Trees.none()
            for contexts, others in zip(everywhere, training, strict=True):
                if left_out >= len(contexts):
                    continue
                control = contexts.control[left_out]
                guessed = some(control, contexts.control_noise[left_out], others)
                found = guessed @ coefficients + trees(correction.features(control, guessed, coefficients, others))
                missed += squared_error(found, contexts, left_out)
                response += squared_error(np.zeros_like(found), contexts, left_out)
    return missed / response


def linear(everywhere: Sequence[Contexts]) -> float:
    """Relative squared error of ridge regression from control profile to shift."""
    missed = response = 0.0
    for contexts in everywhere:
        for left_out in range(len(contexts)):
            others = contexts.without(left_out)
            weights = ridge_weights(contexts.control[left_out], others.control, 1.0)
            missed += squared_error(weights @ (others.perturbed - others.control), contexts, left_out)
            response += squared_error(np.zeros(others.control.shape[1]), contexts, left_out)
    return missed / response


def squared_error(shift: Doubles, contexts: Contexts, left_out: int) -> float:
    """Squared error of a predicted shift, less the sampling noise of the truth."""
    control, perturbed = contexts.control[left_out], contexts.perturbed[left_out]
    reached = np.maximum(control + shift, 0)
    return float(((reached - perturbed) ** 2).sum() - contexts.perturbed_noise[left_out].sum())


def main() -> None:
    """Print the table."""
    own_process()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", choices=DATA, default=list(DATA), metavar="NAME")
    options = parser.parse_args()
    rows = {}
    for name in options.data:
        everywhere = contexts_of(DATA[name]())
        found = {"linear": linear(everywhere), "all": error(everywhere, corrected=True)}
        without = {f"- {what}": error(everywhere, names) for what, names in LEFT_OUT.items()}
        rows[name] = found | without | {f"+ {what}": error(everywhere, more=one) for what, one in TRIED.items()}
        print(f"{name}: {found['all']:.3f}", flush=True)
    with pd.option_context("display.width", 200, "display.max_columns", 40):
        print(pd.DataFrame(rows).round(3).to_string())


if __name__ == "__main__":
    main()
