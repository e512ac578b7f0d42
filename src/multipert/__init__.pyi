from . import models as models
from .benchmark import tune as tune
from .data import PerturbationData as PerturbationData
from .data import PerturbationFeatures as PerturbationFeatures
from .data import Split as Split
from .data import leave_combination_out as leave_combination_out
from .data import leave_context_out as leave_context_out
from .data import leave_covariate_out as leave_covariate_out
from .data import leave_dose_out as leave_dose_out
from .data import leave_perturbation_and_context_out as leave_perturbation_and_context_out
from .data import leave_perturbation_out as leave_perturbation_out
from .data import perturbation_folds as perturbation_folds
from .data import preprocess as preprocess
from .data import read_features as read_features
from .data import scaffold_folds as scaffold_folds
from .data import simulate as simulate
from .data import train_on_everything as train_on_everything
from .errors import InputError as InputError
from .evaluation import bounds as bounds
from .evaluation import check as check
from .evaluation import evaluate as evaluate
from .evaluation import evaluate_many as evaluate_many
from .evaluation import scorecard as scorecard
from .models import explain as explain

__version__: str
