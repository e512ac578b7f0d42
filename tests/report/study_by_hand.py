"""The results of a study that never ran: numbers made up so that each model is as good as a test wants it to be."""

from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np

from multipert.benchmark import StudyResults
from multipert.benchmark.profiles import Profile
from multipert.benchmark.records import DatasetCard, ModelCard, Overview, Reference, TrialResult
from multipert.evaluation import METRICS, PROFILES
from multipert.models import MODELS

CELL_TYPES = ("B", "CD14+Mono", "CD4T", "CD8T", "Dendritic", "FCGR3A+Mono", "NK")
DOSES = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)
GENES = ("ISG15", "IFI6", "CXCL10", "ISG20", "LY6E", "RPL3")
QUALITY = {"mtae": 0.75, "mtae-adv": 0.86, "scgen": 0.45, "scvidr": -0.2, "no-change": 0.0, "mean-shift": 0.55}
"""How much of the way from no change to the ceiling each model goes."""

RATIOS = ("edistance", "wasserstein", "euclidean", "mean_pairwise", "mmd")
BOUNDS = {
    "degs": (8.0, 92.0),
    "r2_hvg": (0.80, 0.998),
    "r2_deg20": (0.30, 0.99),
    "r2_deg100": (0.45, 0.995),
    "edist": (5.5, -0.04),
    "edist_vs_control": (1.0, -0.01),
    "mmd_rbf": (0.5, 0.001),
    "edist_scaled": (9.0, -0.04),
    "mmd_rbf_scaled": (0.4, 0.001),
    "pearson_delta": (0.0, 0.97),
    "pearson_delta_deg100": (0.0, 0.99),
    "mse": (0.03, 0.0004),
    "wmse": (0.2, 0.002),
    "sign_deg100": (0.0, 1.0),
    "amplitude": (0.0, 0.98),
    "de_recall": (0.0, 0.8),
    "variance_ratio": (0.5, 1.02),
    "gene_wasserstein": (0.9, 0.05),
    "covariance_distance": (0.5, 0.1),
    "perturbed_pearson": (0.1, 0.8),
    "discrimination": (0.5, 0.95),
}


def one_perturbation(held_out: Sequence[str] = CELL_TYPES) -> DatasetCard:
    return DatasetCard(
        name="kang_subset",
        source="PBMCs with and without interferon beta (Kang 2018)",
        published="kang",
        n_cells=1975,
        n_genes=6998,
        conditions=("control", "stimulated"),
        doses={},
        contexts=held_out,
        held_out=held_out,
        perturbations=("stimulated",),
        keys={"perturbation_key": "condition", "control": "control", "context_key": "cell_type", "dose_key": None},
        fingerprint="0123456789abcdef",
    )


def eight_doses() -> DatasetCard:
    doses = {f"TCDD@{dose:g}": dose for dose in DOSES}
    contexts = ("Hepatocytes", "Cholangiocytes", "Macrophages", "T_Cells")
    return DatasetCard(
        name="liver",
        source="simulated, laid out like mouse liver nuclei under TCDD",
        published=None,
        n_cells=4800,
        n_genes=500,
        conditions=("control", *doses),
        doses={"control": 0.0, **doses},
        contexts=contexts,
        held_out=contexts,
        perturbations=tuple(doses),
        keys={"perturbation_key": None, "control": "control", "context_key": "celltype", "dose_key": "Dose"},
        fingerprint="fedcba9876543210",
    )


def several_perturbations() -> DatasetCard:
    knocked = ("CDK4", "EGFR", "PDGFRA")
    return DatasetCard(
        name="glioblastoma",
        source="made up",
        published=None,
        n_cells=900,
        n_genes=438,
        conditions=("NTC", *knocked),
        doses={},
        contexts=("A172", "T98G", "U87MG"),
        held_out=("A172", "T98G", "U87MG"),
        perturbations=knocked,
        keys={"perturbation_key": "perturbation", "control": "NTC", "context_key": "cell_line", "dose_key": None},
        fingerprint="00000000",
    )


def card(label: str, *, name: str = "", preset: str = "default", changes: Mapping[str, Any] | None = None) -> ModelCard:
    model = MODELS[name or label]
    return ModelCard(
        label=label,
        name=model.name,
        preset=preset,
        changes=changes or {},
        parameters={"epochs": 100, **(changes or {})},
        meanings={"epochs": "passes over the training cells"},
        title=model.title,
        family=model.family,
        source=model.source,
    )


def study(
    *datasets: DatasetCard,
    models: Sequence[ModelCard] | None = None,
    quality: Mapping[str, float] = QUALITY,
    seeds: Sequence[int] = (1, 2),
    failed: Sequence[tuple[str, str, str, int]] = (),
    missing: Sequence[tuple[str, str, str, int]] = (),
    exceptions: Mapping[tuple[str, str], float] | None = None,
    noise: float = 0.04,
    metrics: Sequence[str] | None = None,
    title: str = "A study by hand",
) -> StudyResults:
    """All trials of some models on some data sets; ``failed`` and ``missing`` by data set, label, context and seed.

    ``exceptions`` are qualities by label and context.
    """
    datasets = datasets or (one_perturbation(),)
    models = models or [card(label) for label in quality]
    several = any(len(data.perturbations) > 1 for data in datasets)
    metrics = metrics or [name for name in PROFILES["default"].metrics() if several or not METRICS[name].several]
    rng = np.random.default_rng(5)
    references = {
        (data.name, context): _reference(data, context, metrics, rng)
        for data, context in ((data, context) for data in datasets for context in data.held_out)
    }
    trials = []
    for data, model in product(datasets, models):
        for context, seed in product(data.held_out, seeds):
            which = (data.name, model.label, context, seed)
            if which in missing:
                continue
            reference = references[data.name, context]
            good = (exceptions or {}).get((model.label, context), quality[model.label])
            trials.append(_trial(data, model, reference, seed, good, noise, metrics, rng, fails=which in failed))
    return StudyResults(
        title=title,
        question="How well is the response of a cell type never seen perturbed predicted?",
        datasets=datasets,
        models=models,
        seeds=seeds,
        metrics=metrics,
        study_file=f'title = "{title}"\nseeds = {list(seeds)}\n',
        versions={"multipert": "0.1.0", "python": "3.11.9", "torch": "2.9.1"},
        planned=len(trials) + len(missing),
        trials=trials,
        references=references,
        overviews={data.name: _overview(data, rng) for data in datasets},
    )


def _between(metric: str, quality: float) -> float:
    if metric in RATIOS:
        if quality == 0:
            return float("inf")
        return float(np.clip(2.2 - 2 * quality, 0.08, None)) ** (0.3 if metric == "mean_pairwise" else 1.0)
    floor, ceiling = BOUNDS[metric]
    low, high = METRICS[metric].range
    return float(np.clip(floor + quality * (ceiling - floor), low, high))


def _scored(data: DatasetCard, quality: float, noise: float, metrics: Sequence[str], rng: Any) -> dict[str, Any]:
    exact = quality in (0.0, 1.0)
    return {
        perturbation: {
            metric: _between(metric, quality if exact else quality + noise * rng.normal() + 0.01 * place)
            for metric in metrics
        }
        for place, perturbation in enumerate(data.perturbations)
    }


def _response(data: DatasetCard, perturbation: str) -> float:
    return 2.5 * np.log1p(data.doses[perturbation]) / np.log1p(30) if perturbation in data.doses else 2.5


def _profiles(data: DatasetCard, share: Mapping[str, float], rng: Any) -> dict[str, Profile]:
    """Cells that go some share of the way from control to the true response, by condition."""

    def profile(condition: str, part: float) -> Profile:
        means = 0.4 + part * _response(data, condition) * (1 - 0.15 * np.arange(len(GENES)))
        cells = np.maximum(rng.normal(means, 0.5, (60, len(GENES))), 0) * (rng.random((60, len(GENES))) > 0.25)
        moved = np.concatenate([rng.normal(at, 1, (30, 2)) for at in (0, 5, 5 * part)])
        return Profile(
            mean=cells.mean(axis=0).astype(np.float32),
            variance=cells.var(axis=0, ddof=1).astype(np.float32),
            fraction=(cells > 0).mean(axis=0).astype(np.float32),
            cells=cells.astype(np.float16),
            places=moved.astype(np.float32),
            roles=np.repeat(np.arange(3, dtype=np.int8), 30),
            shares=np.array([0.4, 0.1], dtype=np.float32),
        )

    return {condition: profile(condition, part) for condition, part in share.items()}


def _reference(data: DatasetCard, context: str, metrics: Sequence[str], rng: Any) -> Reference:
    share = {data.conditions[0]: 0.0, **dict.fromkeys(data.perturbations, 1.0)}
    return Reference(
        dataset=data.name,
        held_out=context,
        bounds={
            "floor": _scored(data, 0.0, 0.0, metrics, rng),
            "ceiling": _scored(data, 1.0, 0.0, metrics, rng),
        },
        calibration={
            "drf": {name: dict.fromkeys(metrics, 0.8) for name in data.perturbations},
            "wins": {name: dict.fromkeys(metrics, 1.0) for name in data.perturbations},
        },
        n_cells=dict.fromkeys(data.conditions, 120),
        genes=GENES,
        profiles=_profiles(data, share, rng),
    )


def _trial(
    data: DatasetCard,
    model: ModelCard,
    reference: Reference,
    seed: int,
    quality: float,
    noise: float,
    metrics: Sequence[str],
    rng: Any,
    *,
    fails: bool,
) -> TrialResult:
    who = (data.name, model.label, model.name, model.preset, reference.held_out, seed)
    if fails:
        return TrialResult(
            *who, status="failed", error="InputError: too few cells to pair", traceback="Traceback\n  File pairing.py"
        )
    trained = model.family != "baseline"
    steps = np.arange(1, 31)
    history: dict[str, Sequence[Any]] = {
        "stage": ["warm-up"] * 10 + ["main"] * 20,
        "epoch": [*range(1, 11), *range(1, 21)],
        "step": [int(step) for step in 20 * steps],
        "seconds": [float(step) for step in steps],
        "train_loss": [float(value) for value in 1 / steps + 0.1],
        "validation_loss": [None] * 10 + [float(value) for value in 1 / steps[10:] + 0.14],
    }
    return TrialResult(
        *who,
        scores=_scored(data, quality, noise, metrics, rng),
        seconds_fit=float(30 * (1 + rng.random()) if trained else 0.02),
        seconds_predict=0.4,
        peak_memory_mb=700.0 + 40 * len(model.label),
        n_parameters=100_000 * len(model.label) if trained else 0,
        steps=600 if trained else 0,
        history=history if trained else {},
        profiles=_profiles(data, dict.fromkeys(data.perturbations, quality), rng),
    )


def _overview(data: DatasetCard, rng: Any) -> Overview:
    n = 600
    context, condition = rng.integers(len(data.contexts), size=n), rng.integers(len(data.conditions), size=n)
    return Overview(
        dataset=data.name,
        counts={context: dict.fromkeys(data.conditions, 120) for context in data.contexts},
        umap={
            "x": [float(x) for x in np.cos(context) * 6 + rng.normal(size=n)],
            "y": [float(y) for y in np.sin(context) * 6 + condition / 4 + rng.normal(size=n)],
            "context": [data.contexts[place] for place in context],
            "condition": [data.conditions[place] for place in condition],
        },
    )
