"""Search the values of a model's parameters on training contexts alone, in a folder that a search goes on from.

Optuna proposes values by the Tree-structured Parzen Estimator (Bergstra et al. 2011) and keeps what came of them in a
journal, a line for each step. Only this process writes there: workers are given values to try and the course of
earlier trials, and give back how it went. So a search runs on every engine that a benchmark runs on, and whatever dies,
trials in flight are tried again and nothing else is lost.
"""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any, Self

from multipert.benchmark.engine import engine_on_demand
from multipert.benchmark.progress import duration
from multipert.benchmark.search_plan import METRIC, SearchPlan, plan_search
from multipert.benchmark.search_results import (
    SearchResults,
    as_text,
    load_search,
    mend_journal,
    open_journal,
    write_about,
    write_tables_of_search,
)
from multipert.benchmark.search_trial import SearchOutcome, SearchTrial
from multipert.benchmark.study import StudyModel, read_study
from multipert.data import only_writer
from multipert.errors import InputError, is_disk_full
from multipert.models import Range
from multipert.progress import Progress

if TYPE_CHECKING:
    import optuna


def tune(
    study: str | Path,
    model: str,
    *,
    trials: int,
    out: str | Path,
    metric: str = METRIC,
    inner: int | None = None,
    workers: int = 1,
    scheduler: str | None = None,
    device: str = "auto",
    announce: Callable[[str], Any] = lambda line: None,
) -> SearchResults:
    """Search the values of a model's parameters, never reading the response that a study holds out.

    The perturbed cells of the study's held-out contexts are put away first. Of the other contexts each is held out in
    turn, the model trained on the rest with the values of a trial, and scored; the trial's value is the mean over these
    inner contexts. The first trial has the values the model begins with. A trial that after the same epochs in the same
    contexts is worse than half of the earlier ones is given up.

    Parameters
    ----------
    study
        A study file whose data sets name their ``held_out`` contexts.
    model
        The label of a model of the study, of which what the study sets stays as it is; or the name of any model.
    trials
        How many there shall be in all; those that are done in ``out`` already count.
    out
        The folder of the search: a search that was stopped or killed there goes on, with more trials one that ended.
        ``preset.toml`` holds the best values, for ``preset=`` of a model or a study; ``trials.csv`` every trial.
    metric
        What to make the most of, between its bounds: no change is 0 and a replicate 1, whichever way is better.
    inner
        Hold out only so many contexts of each data set, those with most perturbed cells.
    workers, scheduler
        Processes on this machine, or the address of a Dask scheduler, as for a benchmark.
    device
        ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"mps"``.
    announce
        Told, in a line each, what is being done.

    Returns
    -------
    SearchResults
        With ``trials``, ``best`` and ``values``.

    Raises
    ------
    InputError
        Something asked for is wrong or cannot be had, the folder holds another search, or no trial succeeded.
    KeyboardInterrupt
        On Ctrl-C: the same call goes on from there.
    """
    if trials < 1:
        raise InputError(f"a search takes 1 trial or more, not {trials}")
    if inner is not None and inner < 1:
        raise InputError(f"a search holds out 1 inner context or more, not {inner}")
    plan = plan_search(read_study(study), model, metric=metric, inner=inner, device=device, announce=announce)
    return run_search(plan, Path(out), trials=trials, workers=workers, scheduler=scheduler, device=device)


def run_search(
    plan: SearchPlan, folder: Path, *, trials: int, workers: int = 1, scheduler: str | None = None, device: str = "auto"
) -> SearchResults:
    """Make the trials that are missing in a folder; parameters and errors as of :func:`tune`."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        if is_disk_full(error):
            raise
        raise InputError(f"cannot write to {folder} ({error.strerror}): choose another folder") from error
    with only_writer(folder):
        write_about(plan, folder)
        mend_journal(folder)
        search = _Search(plan, open_journal(folder, begin=True), trials, device)
        if search.left:
            with engine_on_demand(workers, scheduler, device) as run, _SearchProgress(search) as shown:
                for trial, outcome, problem in run(search.coming()):
                    search.tell(trial, outcome, problem)
                    shown.ended(trial, outcome, problem)
                    write_tables_of_search(load_search(folder), folder)
        results = load_search(folder)
        write_tables_of_search(results, folder)
    if not len(results.done):
        raise InputError(f"no trial succeeded; the first failed with {results.start['problem']}")
    return results


class _Search:
    """A search in progress: thinks of values to try, and takes in what came of them."""

    def __init__(self, plan: SearchPlan, study: "optuna.Study", trials: int, device: str) -> None:
        self.plan, self.study, self.trials, self.device = plan, study, trials, device
        self._asked: dict[int, Any] = {}  # by number, trials as Optuna has them
        if not study.get_trials(deepcopy=False):
            begun = plan.parameters
            study.enqueue_trial(
                {
                    name: begun[name] if isinstance(space, Range) else as_text(begun[name])
                    for name, space in plan.space.items()
                }
            )

    @property
    def ended(self) -> list["optuna.trial.FrozenTrial"]:
        """The trials that came to some end."""
        return [trial for trial in self.study.get_trials(deepcopy=False) if trial.state.is_finished()]

    @property
    def left(self) -> int:
        """How many trials are still to be made."""
        return max(0, self.trials - len(self.ended))

    def coming(self) -> Iterator[SearchTrial]:
        """Trials to make: first those that were in flight when a search was stopped; then what Optuna proposes.

        Each is thought of when it is asked for, so that it draws on all that ended before. What is drawn at random
        depends on its number alone: a search that went on proposes what an undisturbed one would.
        """
        import optuna

        unfinished = (optuna.trial.TrialState.RUNNING,)
        for lost in self.study.get_trials(deepcopy=False, states=unfinished):
            self._seed(lost.number)
            yield self._of(optuna.trial.Trial(self.study, lost._trial_id))
        begun = (optuna.trial.TrialState.WAITING,)
        while len(self.study.get_trials(deepcopy=False)) - len(self.study.get_trials(states=begun)) < self.trials:
            self._seed(len(self.study.get_trials(deepcopy=False)))
            yield self._of(self.study.ask())

    def tell(self, made: SearchTrial, outcome: SearchOutcome | None, problem: str) -> None:
        """Keep how a trial went."""
        import optuna

        trial = self._asked.pop(made.number)
        if outcome is None:
            trial.set_user_attr("problem", problem)
            self.study.tell(trial, state=optuna.trial.TrialState.FAIL)
            return
        for step, value in outcome.steps.items():
            trial.report(value, step)
        values = [
            context.value(score, normalised=made.normalised)
            for context, score in zip(made.contexts, outcome.scores, strict=False)
        ]
        told = {
            "values": values,
            "scores": list(outcome.scores),
            "seconds": outcome.seconds,
            "stopped": outcome.stopped,
        }
        for name, one in told.items():
            trial.set_user_attr(name, one)
        if outcome.stopped:
            self.study.tell(trial, state=optuna.trial.TrialState.PRUNED)
        else:
            self.study.tell(trial, fmean(values))

    def _seed(self, number: int) -> None:
        from optuna.samplers import TPESampler

        self.study.sampler = TPESampler(
            seed=(self.plan.study.seeds[0] + 1_000_003 * number) % 2**32, constant_liar=True
        )

    def _of(self, trial: "optuna.Trial") -> SearchTrial:
        """What a worker is to do."""
        import optuna

        values = {name: _suggest(trial, name, space) for name, space in self.plan.space.items()}
        self._asked[trial.number] = trial
        asked = self.plan.model
        done = self.study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.COMPLETE,))
        return SearchTrial(
            trial.number,
            self.plan.contexts,
            StudyModel(asked.label, asked.name, asked.preset, {**asked.changes, **values}),
            self.plan.normalised,
            [dict(one.intermediate_values) for one in done],
            self.device,
        )


def _suggest(trial: "optuna.Trial", name: str, space: Range | tuple[Any, ...]) -> Any:
    """A value of a parameter: what the trial has, or a new one."""
    if not isinstance(space, Range):
        return trial.suggest_categorical(name, [as_text(one) for one in space])
    if isinstance(space.low, int) and isinstance(space.high, int):
        return trial.suggest_int(name, space.low, space.high, log=space.log)
    return trial.suggest_float(name, space.low, space.high, log=space.log)


class _SearchProgress:
    """Says how each trial went, how good the best is, and how long the rest may take."""

    def __init__(self, search: _Search) -> None:
        self.search = search
        self.begun, self.started = len(search.ended), time.monotonic()
        values = (trial.value for trial in search.ended if trial.state.name == "COMPLETE" and trial.value is not None)
        self.best: float | None = max(values, default=None)
        self._shown = Progress(True)

    def __enter__(self) -> Self:
        self._shown.__enter__()
        self._shown.begin("trials", self.search.trials, self.begun)
        return self

    def __exit__(self, *raised: Any) -> None:
        self._shown.__exit__(*raised)

    def ended(self, trial: SearchTrial, outcome: SearchOutcome | None, problem: str) -> None:
        """A trial has come to some end."""
        done = len(self.search.ended)
        if outcome is None:
            how = f"failed: {problem}"
        elif outcome.stopped:
            how = f"stopped {outcome.stopped}, {outcome.seconds:.1f} s"
        else:
            value = trial.value(outcome.scores)
            self.best = value if self.best is None else max(self.best, value)
            how = f"{self.search.plan.objective} {value:.4f}, {outcome.seconds:.1f} s"
        best = "none done" if self.best is None else f"best {self.best:.4f}"
        left = (time.monotonic() - self.started) / (done - self.begun) * (self.search.trials - done)
        state = f"{best}, about {duration(left)} left"
        total = self.search.trials
        self._shown.update(done, state, line=f"[{done}/{total}] trial {trial.number}: {how}; {state}")
