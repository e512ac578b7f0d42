"""How mtcell's coefficients for one training context were chosen, and what they are worth there and for two.

python -m benchmarks.one_context

Where there is one context to learn from, none can be left out. So pairs of contexts are asked, of real and of simulated
cells: one is predicted from the other; and once more *backwards*, with perturbed cells in the place of control cells,
which gives perturbations that mostly take expression away. Printed is the squared error of means over that of no
change, sampling noise of the truth taken off both, with the prior that several contexts start from and with the
coefficients of ``from_one``; then these beside the ones of least squares over all pairs, each data set counting alike.
About that optimum the error is flat: kept are coefficients nearer to the prior, with hardly more error on the whole
and hardly anywhere more than the prior's. Of ``mcfaline_subset`` the errors are printed, but it has no say: hardly
anything responds there. The last two columns: each context from two others, of the first draw, with the prior for
several contexts and with what is added to it where expression is taken away.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from unittest.mock import patch

import numpy as np
import numpy.typing as npt
import pandas as pd

from benchmarks.ablation import contexts_of, squared_error
from benchmarks.split import real, simulated
from multipert import PerturbationData
from multipert.models import transfer
from multipert.models.transfer import (
    FROM_ONE,
    LARGEST,
    PRIOR,
    TAKES_AWAY,
    Contexts,
    LeftOut,
    from_one,
    part_taken,
    terms,
)
from multipert.process import own_process

Doubles = npt.NDArray[np.float64]
SMALL: dict[str, object] = {"contexts": ("A", "B", "C", "D"), "perturbations": ("alpha", "beta")}
DEEP = SMALL | {"n_genes": 300, "counts_per_gene": 3.0, "cells_per_group": (150, 600)}
STRENGTHS = [(1, 0), (1, 0.25), (1, 0.5), (1, 0.75), (1, 1), (0.4, 0.5), (2, 0.25), (2, 0.5), (2, 1), (3, 0.5)]
"""Response, and how specific it is to a context."""
WORLDS = {
    **{f"simulated, {r}, {s}": SMALL | {"response": r, "context_specific": s} for r, s in STRENGTHS},
    "simulated, deep, 1.5, 0.5": DEEP | {"response": 1.5},
    "simulated, deep, 2, 1": DEEP | {"response": 2, "context_specific": 1},
    "simulated, few cells, 1, 0.5": SMALL | {"counts_per_gene": 0.1, "cells_per_group": 30},
}
NO_SAY = "mcfaline_subset"
DRAWN = 3
"""Draws of each world."""


def data_sets() -> Iterator[tuple[str, Iterator[PerturbationData]]]:
    """Each by its name, and several draws of what is simulated."""
    for name in ("kang_subset", NO_SAY):
        yield name, iter([real(name)])
    for place, (name, world) in enumerate(WORLDS.items()):
        yield name, (simulated(seed=1000 + DRAWN * place + draw, **world) for draw in range(DRAWN))


@dataclass(frozen=True)
class Pair(LeftOut):
    """A context that is predicted from few others, of whom nothing else is known.

    Attributes
    ----------
    known
        All perturbations of these.
    """

    known: Sequence[Contexts]

    def error(self, coefficients: Doubles) -> float:
        """Squared error of the mean, as it counts."""
        return self.weight * squared_error(self.guesses @ coefficients, self.contexts, self.place)


def pairs(everywhere: Sequence[Contexts]) -> Iterator[Pair]:
    """Every context of every perturbation, from each other one."""
    for source in range(max(map(len, everywhere))):
        known = [one.of(np.arange(len(one)) == source) for one in everywhere]
        for one, other in zip(everywhere, known, strict=True):
            for target in range(len(one)):
                if len(other) and target != source:
                    yield Pair(one, target, terms(one.control[target], one.control_noise[target], other), known)


def backwards(one: Contexts) -> Contexts:
    """With perturbed cells in the place of control cells."""
    return Contexts(one.perturbed, one.control, one.perturbed_noise, one.control_noise)


def error(asked: Sequence[Pair], coefficients: Callable[[Pair], Doubles]) -> float:
    """Squared error over that of no change."""
    nothing = np.zeros(len(PRIOR))
    return sum(one.error(coefficients(one)) for one in asked) / sum(one.error(nothing) for one in asked)


def equations(asked: Sequence[Pair]) -> tuple[Doubles, Doubles]:
    """Products and moments of least squares for the coefficients: what always counts, and what is taken away."""
    at = [list(PRIOR).index(term) for term in (*FROM_ONE, *TAKES_AWAY)]
    always = np.arange(len(at)) < len(FROM_ONE)
    products, moments = np.zeros((len(at), len(at))), np.zeros(len(at))
    for one in asked:
        guesses = one.guesses[:, at] * np.where(always, 1, part_taken(one.known))
        products += one.weight * guesses.T @ guesses
        moments += one.weight * guesses.T @ one.shift
    whole = sum(one.error(np.zeros(len(PRIOR))) for one in asked)
    return products / whole, moments / whole


def from_two(everywhere: Sequence[Contexts], *, taken: bool) -> float:
    """Squared error over that of no change where a context is predicted from two others, any of them."""
    missed = response = 0.0
    added = transfer._as_taken if taken else lambda _: 0.0
    everyone = np.arange(max(map(len, everywhere)))
    with patch.object(transfer, "_as_taken", added):
        for two in map(list, combinations(everyone, 2)):
            training = [one.of(np.isin(np.arange(len(one)), two)) for one in everywhere]
            coefficients = transfer.stack([transfer.leave_each_out(one) for one in training])
            for one, others in zip(everywhere, training, strict=True):
                for target in np.setdiff1d(everyone[: len(one)], two):
                    guesses = terms(one.control[target], one.control_noise[target], others)
                    pair = Pair(one, int(target), guesses, training)
                    missed += pair.error(coefficients)
                    response += pair.error(np.zeros(len(PRIOR)))
    return missed / response


def main() -> None:
    """Print errors and coefficients."""
    own_process()
    prior = np.array(list(PRIOR.values()))
    rows, say = {}, []
    for name, drawn in data_sets():
        forwards = [contexts_of(data) for data in drawn]
        for way, draws in {"": forwards, ", backwards": [list(map(backwards, one)) for one in forwards]}.items():
            asked = [pair for everywhere in draws for pair in pairs(everywhere)]
            found = {"prior": error(asked, lambda _: prior), "from one": error(asked, lambda one: from_one(one.known))}
            found |= {f"two, {what}": from_two(draws[0], taken=what == "taken") for what in ("prior", "taken")}
            rows[name + way] = {"taken": np.mean([part_taken(one.known) for one in asked]), **found}
            if name != NO_SAY:
                say.append(equations(asked))
    table = pd.DataFrame(rows).T
    asked_for = table[~table.index.str.startswith(NO_SAY)]
    back = asked_for.index.str.endswith(", backwards")
    table.loc["mean"], table.loc["mean, backwards"] = asked_for[~back].mean(), asked_for[back].mean()
    print(table.round(3).to_string())
    products, moments = (np.array(one) for one in zip(*say, strict=True))
    products, moments = products.sum(axis=0), moments.sum(axis=0)
    always, kept = len(FROM_ONE), np.array([*FROM_ONE.values(), *TAKES_AWAY.values()])
    rest = transfer._bounded(
        products[always:, always:], (moments - products[:, :always] @ kept[:always])[always:], LARGEST
    )
    columns = {
        "kept": kept,
        "least squares": transfer._bounded(products, moments, LARGEST),
        "the others as kept": np.concatenate([kept[:always], rest]),
    }
    names = [*FROM_ONE, *(f"{term}, as much as is taken" for term in TAKES_AWAY)]
    print(pd.DataFrame(columns, names).round(2).to_string())


if __name__ == "__main__":
    main()
