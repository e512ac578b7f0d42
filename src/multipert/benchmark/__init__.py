"""From a study to results on disk."""

from multipert.benchmark.engine import run_study
from multipert.benchmark.estimate import estimate_seconds
from multipert.benchmark.held_out import HeldOutTest, Outcome, run_held_out_test
from multipert.benchmark.plan import Plan, plan_study
from multipert.benchmark.progress import duration
from multipert.benchmark.results import StudyResults, is_benchmark, load_results
from multipert.benchmark.study import Study, read_study

__all__ = [
    "HeldOutTest",
    "Outcome",
    "Plan",
    "Study",
    "StudyResults",
    "duration",
    "estimate_seconds",
    "is_benchmark",
    "load_results",
    "plan_study",
    "read_study",
    "run_held_out_test",
    "run_study",
]
