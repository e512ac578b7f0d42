"""What a study says of one data set: the numbers that its tables, words and figures share."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import pandas as pd

from multipert.benchmark import BOUNDS, StudyResults, mean_scores, over_seeds
from multipert.benchmark.records import DatasetCard, ModelCard, Overview, Reference, TrialResult
from multipert.data.condition_names import undosed
from multipert.evaluation import METRICS, between_bounds, summarise
from multipert.evaluation.trust import JUDGE, ROUNDING

FLOOR, MEAN_RESPONSE, CEILING = BOUNDS
NO_CHANGE = "no-change"
"""The model whose scores are the floor."""
BASELINE = "baseline"
"""The family of the simple baselines."""


@dataclass(frozen=True, eq=False)
class DatasetSummary:
    """What a study says of one data set.

    Attributes
    ----------
    results
        The study.
    card
        The data set.
    anchor
        What its part of the page is called in links.
    """

    results: StudyResults
    card: DatasetCard
    anchor: str = "data"

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
    def distinct_metrics(self) -> list[str]:
        """Those, but for one that is another one's number: what the page shows once."""
        return [name for name in self.metrics if METRICS[name].same_as not in self.metrics]

    @cached_property
    def metric(self) -> str:
        """The one that decides: ``edist``, or the first where it was not measured."""
        return JUDGE if JUDGE in self.metrics else self.metrics[0]

    @cached_property
    def cannot_tell(self) -> dict[str, str]:
        """Metrics that cannot tell a replicate from a guess on these cells, and why."""
        table = self.results.calibration
        here = table[table.index.get_level_values("dataset") == self.card.name]
        told = summarise(here)
        return {str(metric): str(note) for metric, note in told.loc[~told["can_tell"].astype(bool), "note"].items()}

    @cached_property
    def better_floor(self) -> str:
        """The bound that normalised scores start from, by the judging metric: no change, or the mean response."""
        short = METRICS[self.metric].shortfall
        mean_response = short(np.array(self.mean(MEAN_RESPONSE)))
        return MEAN_RESPONSE if mean_response < self.shortfall(FLOOR) else FLOOR

    @cached_property
    def overview(self) -> Overview | None:
        """Its counts and its map; none where they have not been made."""
        return self.results.overviews.get(self.card.name)

    @cached_property
    def models(self) -> dict[str, ModelCard]:
        """By label, those that have a score here, in the study's order."""
        scored = {trial.label for trial in self.trials}
        return {model.label: model for model in self.results.models if model.label in scored}

    @cached_property
    def means(self) -> pd.DataFrame:
        """Rows by label, then the bounds; columns by metric."""
        return self._summary.loc[[*self.models, *BOUNDS], self.metrics].astype(np.float64)

    @cached_property
    def spread(self) -> pd.DataFrame:
        """Standard deviation of the means over seeds, NaN where there is one seed."""
        columns = [f"{metric}_sd" for metric in self.metrics]
        table = self._summary.loc[[*self.models, *BOUNDS], columns].astype(np.float64)
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
        done = self._summary.loc[list(self.models), "trials"].astype(int)
        lacking = {str(label): self.asked(str(label)) - int(n) for label, n in done.items()}
        return {label: n for label, n in lacking.items() if n > 0}

    def asked(self, label: str) -> int:
        """How many trials there should be of a model."""
        seeds = self.models[label].seeds
        return len(self.card.held_out) * (len(self.results.seeds) if seeds is None else seeds)

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
    def baselines(self) -> list[str]:
        """The simple baselines beside no change, from the best to the worst."""
        own = (label for label in self.comparable if self.models[label].family == BASELINE)
        return [label for label in own if self.models[label].name != NO_CHANGE]

    @cached_property
    def best_baseline(self) -> str | None:
        """The best of the simple baselines beside no change."""
        return next(iter(self.baselines), None)

    @cached_property
    def subject(self) -> str | None:
        """The model that is judged: that of a run; of a study the best, of baselines alone the best of them."""
        if not self.results.study_file:
            return next(iter(self.comparable and self.models), None)
        only_baselines = all(card.family == BASELINE for card in self.results.models)
        return self.best_baseline if only_baselines else self.best

    @cached_property
    def rival(self) -> str | None:
        """What the judged model must beat: the best of the other simple baselines."""
        return next((label for label in self.baselines if label != self.subject), None)

    @cached_property
    def shown(self) -> list[str]:
        """The one or two models whose cells are drawn: the judged one, and what it must beat."""
        others = [label for label in self.comparable if self.models[label].name != NO_CHANGE]
        wanted = [self.subject, self.rival, *others, *self.comparable]
        return list(dict.fromkeys(label for label in wanted if label is not None))[:2]

    @cached_property
    def best_of_family(self) -> dict[str, str]:
        """By family, in the order of the study's models, the label of its best model."""
        return {family: next(one for one in self.ranking if self.families[one] == family) for family in self._families}

    @cached_property
    def normalised(self) -> dict[str, float]:
        """By label, the normalised score of the judging metric's mean; NaN for what is not compared."""
        normalised = self.normalise(self.means[[self.metric]].T, self.metric).to_numpy()[0].tolist()
        return {
            label: float("nan") if label in self.incomplete else score
            for label, score in zip(self.models, normalised, strict=True)
        }

    @cached_property
    def scores(self) -> pd.DataFrame:
        """Means over seeds: rows by label, held-out context and perturbation; columns by metric."""
        rows = self.results.scores
        return over_seeds(rows[rows["dataset"] == self.card.name], self.metrics)

    @cached_property
    def bounds(self) -> pd.DataFrame:
        """Rows by bound, held-out context and perturbation; columns by metric."""
        rows = self.results.bounds
        here = rows[rows["dataset"] == self.card.name].drop(columns="dataset")
        return here.set_index(["label", "held_out", "perturbation"])[self.metrics]

    def between(self, label: str) -> pd.DataFrame:
        """A model's scores between their bounds: rows by held-out context, perturbation and metric.

        Columns ``score``, ``floor``, ``mean_response``, ``ceiling`` and ``rival``, means over seeds.
        """
        columns = {"score": self.scores.loc[label]}
        measured = set(self.bounds.index.get_level_values("label"))
        columns |= {bound: self.bounds.loc[bound] for bound in BOUNDS if bound in measured}
        if self.rival is not None:
            columns["rival"] = self.scores.loc[self.rival]
        table = pd.concat({name: rows.stack(future_stack=True) for name, rows in columns.items()}, axis=1)
        held_out = "unseen" if self.card.unseen else "held_out"
        table = table.rename_axis(index=[held_out, "perturbation", "metric"]).reindex(
            columns=["score", *BOUNDS, "rival"]
        )
        return table[table.index.isin(columns["score"].stack(future_stack=True).index)]

    def by(self, level: str, metric: str) -> pd.DataFrame:
        """Means of one metric by ``held_out`` or by ``perturbation``.

        Returns
        -------
        pandas.DataFrame
            Rows in the data set's order; columns by label, then the bounds. NaN where nothing was measured.
        """
        order = self.card.held_out if level == "held_out" else self.card.perturbations
        models = mean_scores(self.scores[[metric]], ["label", level])
        bounds = self.bounds[[metric]].groupby(level=["label", level]).mean()
        table = pd.concat([models, bounds])[metric].unstack("label")
        wide: pd.DataFrame = table.reindex(index=list(order), columns=[*self.models, *BOUNDS])
        return wide

    def by_metric(self, level: str) -> dict[str, pd.DataFrame]:
        """Those tables of every metric."""
        return {metric: self.by(level, metric) for metric in self.distinct_metrics}

    @cached_property
    def _families(self) -> list[str]:
        """Baselines last."""
        return sorted(dict.fromkeys(self.families.values()), key=lambda family: family == BASELINE)

    @cached_property
    def families(self) -> dict[str, str]:
        """Of each label."""
        return {label: card.family for label, card in self.models.items()}

    def normalise(self, table: pd.DataFrame, metric: str) -> pd.DataFrame:
        """Normalised scores (0 at the better floor, 1 at the ceiling) of a table like those of ``by``; no bounds."""
        scores = table[list(self.models)].to_numpy()
        bounds = {bound: np.repeat(table[bound].to_numpy(), scores.shape[1]) for bound in BOUNDS}
        index = pd.Index([metric] * scores.size, name="metric")
        read = between_bounds(pd.DataFrame({"score": scores.ravel(), **bounds}, index=index))
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

    def won(self, label: str) -> int:
        """In how many places (held-out contexts and perturbations) a model beats no change and every baseline."""
        table = pd.concat([self.scores[self.metric], self.bounds[self.metric]]).unstack("label")
        rivals = [FLOOR, *(one for one in self.baselines if one != label)]
        ours, theirs = (METRICS[self.metric].shortfall(table[of].to_numpy()) for of in (label, rivals))
        return int((ours[:, None] < theirs).all(axis=1).sum())

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
    def doses(self) -> dict[str, dict[str, float]]:
        """The series of doses: by the perturbation's name, condition to dose, rising; only those of two or more."""
        series: dict[str, dict[str, float]] = {}
        for perturbation in self.card.perturbations:
            if self.card.doses.get(perturbation, 0) > 0:
                series.setdefault(undosed(perturbation), {})[perturbation] = self.card.doses[perturbation]
        rising = {name: dict(sorted(doses.items(), key=lambda one: one[1])) for name, doses in series.items()}
        return {name: doses for name, doses in rising.items() if len(doses) > 1}

    @cached_property
    def kinds(self) -> "dict[str, DatasetSummary]":
        """What is said of each kind of what is held out (contexts, perturbations, ...), where there are several."""
        kind = {held_out: self.card.unseen.get(held_out, "context") for held_out in self.card.held_out}
        names = list(dict.fromkeys(kind.values()))
        return {name: self._only([one for one in kind if kind[one] == name]) for name in names if len(names) > 1}

    def _only(self, held_out: Sequence[str]) -> "DatasetSummary":
        """What is said of a part of what is held out."""
        unseen = {name: kind for name, kind in self.card.unseen.items() if name in held_out}
        here = [trial for trial in self.trials if trial.held_out in held_out]
        results = replace(
            self.results,
            trials=here,
            references={place: one for place, one in self.results.references.items() if place[1] in held_out},
        )
        return DatasetSummary(results, replace(self.card, held_out=list(held_out), unseen=unseen), self.anchor)

    def responding(self, perturbation: str, n: int) -> list[str]:
        """Name the genes that rise or fall most: by Welch's t of true against control cells, summed over contexts.

        Of a compound's doses the highest decides, so that a gene can be followed across doses.
        """
        doses = self.doses.get(undosed(perturbation), {perturbation: 0.0})
        decides = max(doses, key=lambda name: doses[name])
        total = pd.Series(dtype=np.float64)
        for reference in self.references:
            if decides in reference.profiles:
                t = welch(reference, self.card.conditions[0], decides)
                total = total.add(pd.Series(t, index=list(reference.genes)), fill_value=0)
        return [str(gene) for gene in total.abs().sort_values(ascending=False, kind="stable").index[:n]]

    @cached_property
    def comparable(self) -> list[str]:
        """Labels from the best to the worst: those with a mean over all contexts that any model was tried in."""
        return [label for label in self.ranking if label not in self.incomplete and not np.isnan(self.mean(label))]

    def places(self, most: int, *, perturbations: int | None = None) -> list[tuple[Reference, str]]:
        """At most so many held-out contexts and perturbations to be drawn one by one: those farthest from control."""
        contexts = self.references[:most]
        far = self.strongest(perturbations or max(1, most // max(1, len(contexts))))
        return [(one, perturbation) for one in contexts for perturbation in far if perturbation in one.profiles]

    @cached_property
    def _summary(self) -> pd.DataFrame:
        table = self.results.summary
        return table[table["dataset"] == self.card.name].set_index("label")


def welch(reference: Reference, control: str, perturbation: str) -> np.ndarray:
    """Welch's t of every gene, (genes,), true against control cells of one context."""
    before, after = reference.profiles[control], reference.profiles[perturbation]
    noise = before.variance / reference.n_cells[control] + after.variance / reference.n_cells[perturbation]
    return np.asarray((after.mean - before.mean) / np.sqrt(np.maximum(noise, 1e-8)))


def summaries(results: StudyResults) -> Sequence[DatasetSummary]:
    """One for each data set of the study."""
    return [DatasetSummary(results, card, f"data-{place + 1}") for place, card in enumerate(results.datasets)]
