"""From a study to results on disk."""

from multipert.benchmark.engine import run_study
from multipert.benchmark.estimate import Cost, estimate_costs
from multipert.benchmark.plan import Plan, plan_study
from multipert.benchmark.progress import duration
from multipert.benchmark.results import BOUNDS, StudyResults, is_benchmark, load_results, mean_scores, over_seeds
from multipert.benchmark.single import results_of_run
from multipert.benchmark.study import Study, read_study

__all__ = [
    "BOUNDS",
    "Cost",
    "Plan",
    "Study",
    "StudyResults",
    "duration",
    "estimate_costs",
    "is_benchmark",
    "load_results",
    "mean_scores",
    "over_seeds",
    "plan_study",
    "read_study",
    "results_of_run",
    "run_study",
]
