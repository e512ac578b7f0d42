"""(control, truth, predicted) -> scores, and the bounds to read them between."""

from multipert.evaluation.bounds import between_bounds, bounds, scorecard
from multipert.evaluation.calibration import calibrate, summarise
from multipert.evaluation.data_check import DataCheck, check
from multipert.evaluation.populations import Comparison
from multipert.evaluation.profiles import PROFILES, Profile
from multipert.evaluation.registry import METRICS, Metric, metric, metric_of_several
from multipert.evaluation.scoring import evaluate, evaluate_many
from multipert.evaluation.study_metrics import STUDY

__all__ = [
    "METRICS",
    "PROFILES",
    "STUDY",
    "Comparison",
    "DataCheck",
    "Metric",
    "Profile",
    "between_bounds",
    "bounds",
    "calibrate",
    "check",
    "evaluate",
    "evaluate_many",
    "metric",
    "metric_of_several",
    "scorecard",
    "summarise",
]
