"""Perturbations, combinations and doses that training never saw: what models and baselines make of them.

    python -m benchmarks.unseen worlds | norman | mcfaline | doses | drugs [--models NAME ...]

``worlds``: cells of a world whose truth is known, with structure (effects follow features) and without. ``norman``:
gene activations in K562 (Norman 2019) and their combinations. ``mcfaline``: knock-downs in three cell lines.
``doses``: a dose left out, the lowest, one in the middle, the highest. ``drugs``: 350 structures.

An error is the squared distance of predicted from true mean shifts over the squared length of the true ones: 0 is
perfect, 1 what no change has. Means over what is held out and, for the network, over three seeds.
"""

import argparse
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

import multipert as mp
from multipert.data import HeldOut, locate, split_by
from multipert.data.structures import read_smiles, scaffold_groups, scaffolds
from multipert.errors import InputWarning
from multipert.models.network_model import NetworkModel

SEEDS = {"mtae-ot": (1, 2, 3)}
"""Of the network; of the others chance moves no mean."""
SMALL: dict[str, Any] = {"hidden": (128,), "latent": 32, "dropout": 0.1, "batch_size": 128}
"""A network for some hundreds of genes, trained in seconds."""
STEPS = 1_500
"""Steps of its training, about."""
FAMILIES = Path(__file__).parent / "norman_families.gmt"
Doubles = NDArray[np.float64]
Features = mp.PerturbationFeatures | str | None


def error(true: Doubles, predicted: Doubles) -> float:
    """Squared distance over squared length of the true shift."""
    return float(((true - predicted) ** 2).sum() / (true**2).sum())


def shifts(model: mp.models.Model, data: mp.PerturbationData, split: mp.Split) -> Iterator[tuple[Doubles, Doubles]]:
    """The true and the predicted mean shift of every held-out perturbation in every context."""
    for context in data.contexts:
        controls = data.to_anndata(data.rows(condition=data.control, context=context))
        before = np.asarray(controls.X.mean(axis=0)).ravel()
        for name in split.rule.conditions:
            rows = np.intersect1d(split.test, data.rows(condition=name, context=context))
            if len(rows):
                truth = np.asarray(data.X[rows].mean(axis=0)).ravel() - before
                yield truth, model.predict(controls, name).X.mean(axis=0) - before


def compare(
    what: str, data: mp.PerturbationData, splits: Sequence[mp.Split], models: Sequence[str], features: Features
) -> pd.Series:
    """The error of each model, mean over what the splits hold out, and over seeds; NaN where it predicts nothing."""
    found: dict[str, float] = {}
    for name in models:
        errors = []
        for split in splits:
            for seed in SEEDS.get(name, (1,)):
                model = network(name, data, split, seed) if name in SEEDS else mp.models.create(name)
                told = features if model.takes_features else None
                try:
                    model.fit(data, split, features=told, device="cpu", progress=False)
                    errors += [error(true, predicted) for true, predicted in shifts(model, data, split)]
                except mp.InputError:
                    errors.append(np.nan)
        found[name] = float(np.mean(errors))
        print(f"{what}: {name} {found[name]:.3f}", flush=True)
    return pd.Series(found)


def network(name: str, data: mp.PerturbationData, split: mp.Split, seed: int) -> mp.models.Model:
    """A small network that is trained for some :data:`STEPS` steps, however many cells or pairs an epoch has."""
    once = mp.models.create(name, **SMALL, epochs=1)
    assert isinstance(once, NetworkModel)
    epoch = once.planned_steps(data, split)
    return mp.models.create(name, seed=seed, **SMALL, epochs=max(1, round(STEPS / epoch)))


# Worlds whose truth is known.


def world(*, structure: bool, interaction: float = 0.0, seed: int = 0) -> tuple[AnnData, pd.DataFrame]:
    """Cells of a world in which programmes bend smoothly with four features of a perturbation.

    A programme is driven by ``tanh(u.z)`` of the features z; a pair by ``1 + interaction`` times the sum of both.
    Without structure the features that are told are those of other perturbations.
    """
    rng = np.random.default_rng(seed)
    z = rng.normal(0, 1, (40, 4))
    names = [f"p{i:02}" for i in range(len(z))]
    drive = dict(zip(names, np.tanh(z @ rng.normal(0, 0.8, (4, 6))), strict=True))
    pairs = zip(names[::2], names[1::2], strict=True)
    together = {f"{one}+{two}": (1 + interaction) * (drive[one] + drive[two]) for one, two in pairs}
    cells = cells_of({"control": np.zeros(6), **drive, **together}, n_genes=200, n_cells=60, rng=rng)
    return cells, pd.DataFrame(z if structure else rng.permutation(z), index=names)


def cells_of(drives: dict[str, Doubles], *, n_genes: int, n_cells: int, rng: np.random.Generator) -> AnnData:
    """Log-normalised negative binomial counts of cells whose programmes are driven, five times as many controls."""
    n_programmes = len(drives["control"])
    loading = rng.normal(0, 0.9, (n_programmes, n_genes)) * (rng.random((n_programmes, n_genes)) < 0.15)
    base = rng.normal(-1.0, 1.0, n_genes)
    counts, labels = [], list[str]()
    for name, drive in drives.items():
        n = n_cells * (5 if name == "control" else 1)
        rate = np.exp(base + (drive + rng.normal(0, 0.2, (n, n_programmes))) @ loading)
        counts.append(rng.poisson(rng.gamma(4.0, rate / 4)))
        labels += [name] * n
    X = np.concatenate(counts).astype(np.float32)
    total = X.sum(axis=1, keepdims=True)
    obs = pd.DataFrame({"condition": labels, "line": "one"}, index=[f"cell{i}" for i in range(len(X))])
    return AnnData(csr_matrix(np.log1p(X * (np.median(total) / total)).astype(np.float32)), obs=obs)


LINE: dict[str, Any] = {"perturbation_key": "condition", "control": "control", "context_key": "line"}
MODELS = (
    "no-change",
    "mean-perturbation",
    "additive",
    "nearest-perturbation",
    "linear-perturbation",
    "ridge-perturbation",
    "mtcell",
    *SEEDS,
)


def worlds(models: Sequence[str]) -> None:
    """Unseen perturbations and combinations where the truth is known."""
    columns = {}
    for structure in (True, False):
        cells, table = world(structure=structure)
        single = cells[~cells.obs["condition"].str.contains("+", regex=False)].copy()
        data = mp.PerturbationData.from_anndata(single, **LINE)
        told = mp.PerturbationFeatures.from_table(table)
        name = f"perturbation, {'structure' if structure else 'no structure'}"
        columns[name] = compare(name, data, mp.perturbation_folds(data, 5), models, told)
    for interaction in (0.0, 0.5, -0.4):
        cells, _ = world(structure=True, interaction=interaction)
        data = mp.PerturbationData.from_anndata(cells, **LINE)
        pairs = [name for name in data.perturbations if "+" in name]
        splits = [mp.leave_perturbation_out(data, pairs[fold::4]) for fold in range(4)]
        name = f"pair, interaction {interaction:g}"
        columns[name] = compare(name, data, splits, models, "members")
    show("worlds with known truth", columns)


# Real cells.


def real(name: str) -> mp.PerturbationData:
    """A subset of the catalogue."""
    return mp.PerturbationData.from_anndata(
        locate(name), perturbation_key="perturbation", control="control", context_key="cell_line"
    )


def never_seen(data: mp.PerturbationData, gene: str) -> mp.Split:
    """Hold a gene out, and hide every combination that it is in."""
    hidden = tuple(name for name in data.perturbations if gene in name.split("+"))
    return split_by(data, HeldOut("perturbation", conditions=(gene,), hidden=hidden))


def norman(models: Sequence[str]) -> None:
    """Combinations with both members seen, with one, and genes never seen."""
    data = real("norman_subset")
    genes = [name for name in data.perturbations if "+" not in name]
    pairs = [name for name in data.perturbations if "+" in name and set(name.split("+")) <= set(genes)]
    print(
        f"{len(genes)} genes, {len(data.perturbations) - len(genes)} pairs, {len(pairs)} of them with both members seen"
    )
    families = mp.PerturbationFeatures.from_gene_sets(FAMILIES)
    both = [mp.leave_combination_out(data, pair) for pair in pairs]
    columns = {"both seen": compare("both seen", data, both, models, "members")}
    one = [mp.leave_combination_out(data, pair, seen=1) for pair in pairs]
    columns["one seen, gene families"] = compare("one seen", data, one, models, families)
    alone = [never_seen(data, gene) for gene in genes]
    columns["gene never seen, families"] = compare("gene never seen", data, alone, models, families)
    show("Norman 2019, CRISPRa in K562", columns)
    for pair, split in zip(pairs, both, strict=True):
        compare(pair, data, [split], [name for name in ("additive", "mtcell") if name in models], "members")


def mcfaline(models: Sequence[str]) -> None:
    """Genes never seen in any of three cell lines; all of them kinases or their receptors."""
    data = real("mcfaline_subset")
    splits = [mp.leave_perturbation_out(data, gene) for gene in data.perturbations]
    families = mp.PerturbationFeatures.from_gene_sets(FAMILIES)
    show("McFaline-Figueroa 2024", {"gene never seen": compare("gene never seen", data, splits, models, families)})


# Doses.

NO_DOSES = ("mean-perturbation", "nearest-perturbation")
"""Baselines that say nothing of doses."""


def doses(models: Sequence[str]) -> None:
    """A dose of every compound left out: the lowest, the middle one, the highest; and what intervals say of it."""
    ladder = (0.1, 0.3, 1.0, 3.0, 10.0)
    cells = mp.simulate(
        n_genes=200, contexts=("A", "B"), perturbations=("p", "q", "r"), doses=ladder, cells_per_group=150, response=2.0
    )
    data = mp.PerturbationData.from_anndata(
        cells, perturbation_key="compound", control="control", context_key="cell_type", dose_key="dose"
    )
    columns, said = {}, []
    for what, dose in (("lowest", ladder[0]), ("middle", ladder[2]), ("highest", ladder[-1])):
        split = mp.leave_dose_out(data, dose)
        columns[what] = compare(what, data, [split], [name for name in models if name not in NO_DOSES], "dose")
        model = mp.models.create("mtcell").fit(data, split, features="dose")
        inside, width = [], []
        for context in data.contexts:
            controls = data.to_anndata(data.rows(condition=data.control, context=context))
            for name in split.rule.conditions:
                predicted = model.predict(controls, name, intervals=0.9)
                low, high = (predicted.varm[f"mean_{end}"].to_numpy().ravel() for end in ("low", "high"))
                true = np.asarray(data.X[data.rows(condition=name, context=context)].mean(axis=0)).ravel()
                inside.append(((low <= true) & (true <= high)).mean())
                width.append((high - low).mean())
        note = next(one for one in predicted.uns["multipert"]["warnings"] if "no cell" in one)
        said.append(
            f"{what}: 90 % intervals hold {np.mean(inside):.2f} of means, mean width {np.mean(width):.3f}; {note}"
        )
    show("a dose left out, simulated", columns)
    print(*said, sep="\n")


# Drugs.


def drugs(models: Sequence[str]) -> None:
    """350 drugs by their structures: how long fingerprints take, what folds leak, a world that follows structure."""
    structures = read_smiles(locate("norman_subset").parent / "drugs.csv")
    started = time.monotonic()
    features = mp.PerturbationFeatures.from_smiles(structures)
    print(f"{len(structures)} fingerprints of {features.table.shape[1]} bits: {time.monotonic() - started:.2f} s")
    names = sorted(structures)
    bits = features.table[[features.names.index(name) for name in names]]
    common = bits @ bits.T
    alike = common / (bits.sum(1)[:, None] + bits.sum(1) - common)
    of = scaffolds(structures)
    shuffled = np.random.default_rng(0).permutation(len(names))
    kinds = {
        "random folds": [sorted(names[i] for i in part) for part in np.array_split(shuffled, 5)],
        "scaffold folds": scaffold_groups(structures, 5),
    }
    for kind, parts in kinds.items():
        nearest, shared = [], 0
        for part in parts:
            inside = np.isin(names, part)
            nearest += list(alike[np.ix_(inside, ~inside)].max(axis=1))
            elsewhere = {of[name] for name in names if name not in part} - {""}
            shared += sum(of[name] in elsewhere for name in part)
        n_near = int((np.array(nearest) > 0.7).sum())
        print(
            f"{kind}: {shared} drugs share a scaffold with training, {n_near} have a training drug above Tanimoto 0.7"
        )
    data = mp.PerturbationData.from_anndata(of_structures(names, bits.astype(np.float64)), **LINE)
    columns = {
        kind: compare(kind, data, [mp.leave_perturbation_out(data, parts[0])], models, features)
        for kind, parts in kinds.items()
    }
    show("350 drugs whose effects follow their structures, one fold", columns)


def of_structures(names: Sequence[str], bits: Doubles) -> AnnData:
    """Cells under drugs whose effects bend smoothly with the first principal components of their fingerprints."""
    rng = np.random.default_rng(0)
    left, sizes, _ = np.linalg.svd(bits - bits.mean(axis=0), full_matrices=False)
    z = left[:, :8] * np.sqrt(len(names)) * (sizes[:8] / sizes[0])
    drive = dict(zip(names, np.tanh(z @ rng.normal(0, 0.8, (8, 5))), strict=True))
    return cells_of({"control": np.zeros(5), **drive}, n_genes=100, n_cells=12, rng=rng)


def show(title: str, columns: dict[str, pd.Series]) -> None:
    """Print errors, a model a line."""
    print(f"\n{title}: error (0 perfect, 1 no change)")
    print(pd.DataFrame(columns).to_string(float_format=lambda value: f"{value:.3f}", na_rep="-"), flush=True)


PARTS: dict[str, Callable[[Sequence[str]], None]] = {
    "worlds": worlds,
    "norman": norman,
    "mcfaline": mcfaline,
    "doses": doses,
    "drugs": drugs,
}

if __name__ == "__main__":
    warnings.simplefilter("ignore", InputWarning)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", choices=[*PARTS], default=[*PARTS])
    parser.add_argument("--models", nargs="+", default=MODELS, metavar="NAME", help="of all: %(default)s")
    asked = parser.parse_args()
    for part in asked.parts:
        PARTS[part](asked.models)
