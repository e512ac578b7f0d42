"""From a study to results on disk."""

from multipert.benchmark.engine import run_study
from multipert.benchmark.estimate import Cost, estimate_costs
from multipert.benchmark.plan import Plan, plan_study
from multipert.benchmark.progress import duration
from multipert.benchmark.results import BOUNDS, StudyResults, is_benchmark, load_results, mean_scores, over_seeds
from multipert.benchmark.search import run_search, tune
from multipert.benchmark.search_plan import SearchPlan, plan_search
from multipert.benchmark.search_results import SearchResults, is_search, load_search
from multipert.benchmark.single import results_of_run
from multipert.benchmark.study import Study, read_study

__all__ = [
    "BOUNDS",
    "Cost",
    "Plan",
    "SearchPlan",
    "SearchResults",
    "Study",
    "StudyResults",
    "duration",
    "estimate_costs",
    "is_benchmark",
    "is_search",
    "load_results",
    "load_search",
    "mean_scores",
    "over_seeds",
    "plan_search",
    "plan_study",
    "read_study",
    "results_of_run",
    "run_search",
    "run_study",
    "tune",
]
