"""How the models of a study stand on one data set: the numbers that its tables, words and figures share."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from multipert.benchmark import StudyResults
from multipert.benchmark.records import DatasetCard, ModelCard, Reference, TrialResult
from multipert.evaluation import METRICS, between_bounds
from multipert.report.verdict import CEILING, NO_CHANGE, judging_metric

FLOOR = "floor"
BASELINE = "baseline"
"""The family of the simple baselines."""
ROUNDING = 1e-6
"""A score that differs from the floor by less than this share of it is the floor."""


@dataclass(frozen=True, eq=False)
class Standing:
    """How the models stand on one data set.

    Attributes
    ----------
    results
        The study.
    card
        The data set.
    """

    results: StudyResults
    card: DatasetCard

    @cached_property
    def trials(self) -> list[TrialResult]:
        """Those of this data set that were done."""
        return [one for one in self.results.trials if one.dataset == self.card.name and one.status == "done"]

    @cached_property
    def references(self) -> list[Reference]:
        """One for each held-out context that has been measured, in the data set's order."""
        found = (self.results.references.get((self.card.name, context)) for context in self.card.held_out)
        return [reference for reference in found if reference is not None]

    @cached_property
    def metrics(self) -> list[str]:
        """Those that say something here: one that needs several perturbations may not."""
        table = self._summary[list(self.results.metrics)]
        return [str(name) for name in table if table[name].notna().any()] or list(self.results.metrics)

    @cached_property
    def metric(self) -> str:
        """The one that decides."""
        return judging_metric(self.means)

    @cached_property
    def models(self) -> dict[str, ModelCard]:
        """By label, those that have a score here, in the study's order."""
        scored = {trial.label for trial in self.trials}
        return {model.label: model for model in self.results.models if model.label in scored}

    @cached_property
    def means(self) -> pd.DataFrame:
        """Rows by label, then floor and ceiling (of the contexts where a model was scored); columns by metric."""
        table = self._summary.loc[[*self.models, FLOOR, CEILING], self.metrics].astype(np.float64)
        here = self.bounds.index.get_level_values("held_out").isin({trial.held_out for trial in self.trials})
        for bound, means in self.bounds[here].groupby(level="label"):
            table.loc[bound] = means.mean()
        return table

    @cached_property
    def spread(self) -> pd.DataFrame:
        """Standard deviation of the means over seeds, NaN where there is one seed."""
        columns = [f"{metric}_sd" for metric in self.metrics]
        table = self._summary.loc[[*self.models, FLOOR, CEILING], columns].astype(np.float64)
        return table.set_axis(self.metrics, axis=1)

    def mean(self, label: str, metric: str | None = None) -> float:
        """The mean of a label, of the judging metric unless told otherwise; NaN where it was not measured."""
        metric = metric or self.metric
        return float(self.means[metric].to_dict()[label]) if metric in self.means else float("nan")

    def deviation(self, label: str, metric: str | None = None) -> float:
        """Its standard deviation over seeds."""
        metric = metric or self.metric
        return float(self.spread[metric].to_dict()[label]) if metric in self.spread else float("nan")

    def shortfall(self, label: str) -> float:
        """Its mean of the judging metric, turned so that lower is better."""
        return float(METRICS[self.metric].shortfall(np.array(self.mean(label))))

    @cached_property
    def costs(self) -> pd.DataFrame:
        """Rows by label; ``seconds_fit``, ``seconds_predict``, ``peak_memory_mb`` and ``n_parameters``."""
        names = ["seconds_fit", "seconds_predict", "peak_memory_mb", "n_parameters"]
        return self._summary.loc[list(self.models), names].astype(np.float64)

    @cached_property
    def lacking(self) -> dict[str, int]:
        """By label, how many of a model's trials have no score; only of those that lack some."""
        asked = len(self.card.held_out) * len(self.results.seeds)
        done = self._summary.loc[list(self.models), "trials"].astype(int)
        return {str(label): int(asked - n) for label, n in done.items() if n < asked}

    @cached_property
    def incomplete(self) -> set[str]:
        """Models without a score in a context where another has one: their means say something else."""
        scored = {(trial.label, trial.held_out) for trial in self.trials}
        contexts = {context for _, context in scored}
        return {label for label in self.models if any((label, context) not in scored for context in contexts)}

    @cached_property
    def ranking(self) -> list[str]:
        """Labels from the best mean of the judging metric to the worst; those not to be compared come last."""
        place = {label: np.nan_to_num(self.shortfall(label), nan=np.inf) for label in self.models}
        return sorted(self.models, key=lambda label: (label in self.incomplete, place[label]))

    @cached_property
    def best(self) -> str | None:
        """The best model that is no baseline."""
        return next((label for label in self.comparable if self.models[label].family != BASELINE), None)

    @cached_property
    def best_baseline(self) -> str | None:
        """The best of the simple baselines beside no change."""
        return next(
            (
                label
                for label in self.comparable
                if self.models[label].family == BASELINE and self.models[label].name != NO_CHANGE
            ),
            None,
        )

    @cached_property
    def shown(self) -> list[str]:
        """The one or two models whose cells are drawn: the best, and what it must beat."""
        others = [label for label in self.comparable if self.models[label].name != NO_CHANGE]
        wanted = [self.best, self.best_baseline, *others, *self.comparable]
        return list(dict.fromkeys(label for label in wanted if label is not None))[:2]

    @cached_property
    def best_of_family(self) -> dict[str, str]:
        """By family, the label of its best model."""
        best: dict[str, str] = {}
        for label in self.ranking:
            best.setdefault(self.models[label].family, label)
        return best

    @cached_property
    def closed(self) -> dict[str, float]:
        """By label, the share of the way from floor to ceiling by the judging metric; NaN for what is not compared."""
        shares = self.shares(self.means[[self.metric]].T, self.metric).to_numpy()[0].tolist()
        return {
            label: float("nan") if label in self.incomplete else share
            for label, share in zip(self.models, shares, strict=True)
        }

    @cached_property
    def scores(self) -> pd.DataFrame:
        """Means over seeds: rows by label, held-out context and perturbation; columns by metric."""
        rows = self.results.scores
        rows = rows[rows["dataset"] == self.card.name]
        return rows.groupby(["label", "held_out", "perturbation"])[self.metrics].mean()

    @cached_property
    def bounds(self) -> pd.DataFrame:
        """Rows by bound (floor, ceiling), held-out context and perturbation; columns by metric."""
        rows = [
            {"label": bound, "held_out": reference.held_out, "perturbation": perturbation, **scores}
            for reference in self.references
            for bound, table in ((FLOOR, reference.floor), (CEILING, reference.ceiling))
            for perturbation, scores in table.items()
        ]
        keys = ["label", "held_out", "perturbation"]
        table = pd.DataFrame(rows, columns=[*keys, *self.metrics]).set_index(keys)
        return table.astype(np.float64).sort_index()

    def by(self, level: str, metric: str) -> pd.DataFrame:
        """Means of one metric by ``held_out`` or by ``perturbation``.

        Returns
        -------
        pandas.DataFrame
            Rows in the data set's order; columns by label, then floor and ceiling. NaN where nothing was measured.
        """
        order = self.card.held_out if level == "held_out" else self.card.perturbations
        both = pd.concat([self.scores[metric], self.bounds[metric]])
        table = both.groupby(["label", level], sort=False).mean().unstack("label")
        wide: pd.DataFrame = table.reindex(index=list(order), columns=[*self.models, FLOOR, CEILING])
        return wide

    def shares(self, table: pd.DataFrame, metric: str) -> pd.DataFrame:
        """The share of the way from floor to ceiling of each score of a table like those of ``by``; no bounds."""
        scores = table[list(self.models)].to_numpy()
        floor, ceiling = (np.repeat(table[bound].to_numpy(), scores.shape[1]) for bound in (FLOOR, CEILING))
        index = pd.Index([metric] * scores.size, name="metric")
        read = between_bounds(pd.DataFrame({"score": scores.ravel(), "floor": floor, "ceiling": ceiling}, index=index))
        return pd.DataFrame(read["normalised"].to_numpy().reshape(scores.shape), table.index, list(self.models))

    def worse_than_nothing(self, label: str) -> list[str]:
        """Where a model is worse than predicting no change: contexts, with the perturbation where there are several."""
        ours = self.scores.xs(label, level="label")[self.metric]
        floor = self.bounds[self.bounds.index.get_level_values("label") == FLOOR].droplevel("label")[self.metric]
        floor = floor.reindex(ours.index)
        short = METRICS[self.metric].shortfall
        worse = short(ours.to_numpy()) > short(floor.to_numpy()) + ROUNDING * np.abs(floor.to_numpy())
        pairs = [(str(context), str(perturbation)) for context, perturbation in ours.index[worse]]
        one = len(self.card.perturbations) == 1
        return [context if one else f"{perturbation} in {context}" for context, perturbation in pairs]

    def is_worse_than_nothing(self, label: str) -> bool:
        """Whether a model's mean is worse than predicting no change."""
        return self.shortfall(label) > self.shortfall(FLOOR) + ROUNDING * abs(self.mean(FLOOR))

    def strongest(self, most: int) -> list[str]:
        """The perturbations farthest from control, by what no change scores; in the data set's order."""
        floor = self.by("perturbation", self.metric)[FLOOR]
        effect = pd.Series(METRICS[self.metric].shortfall(floor.to_numpy()), floor.index).dropna()
        chosen = set(effect.nlargest(most).index) or set(self.card.perturbations[:most])
        return [perturbation for perturbation in self.card.perturbations if perturbation in chosen]

    def trial(self, label: str, held_out: str) -> TrialResult | None:
        """The first seed's trial that was done."""
        return next((one for one in self.trials if (one.label, one.held_out) == (label, held_out)), None)

    @cached_property
    def comparable(self) -> list[str]:
        """Labels from the best to the worst: those with a mean over all contexts that any model was tried in."""
        return [label for label in self.ranking if label not in self.incomplete and not np.isnan(self.mean(label))]

    @cached_property
    def _summary(self) -> pd.DataFrame:
        table = self.results.summary
        return table[table["dataset"] == self.card.name].set_index("label")


def standings(results: StudyResults) -> Sequence[Standing]:
    """One for each data set of the study."""
    return [Standing(results, card) for card in results.datasets]
