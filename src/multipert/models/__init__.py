"""The models: one file a published method, all behind one contract."""

# Importing a method's file enters its models; they are listed in this order.
from multipert.models.mtae import MTAe, MTAeAdv, MTAeAdvG, MTAeOT, MTAePlusOT, MTVae, MTVaeOT, MTVaePlusOT
from multipert.models.mtcell import MTCell
from multipert.models.scbutterfly import ScButterfly
from multipert.models.scgen import ScGen
from multipert.models.scpregan import ScPreGAN
from multipert.models.scvidr import ScVIDR, ScVIDRDose

# isort: split
from multipert.models.base import Model
from multipert.models.baselines import Additive, Linear, MeanShift, NearestContext, NoChange, Resample
from multipert.models.candidates import dose_response, film_distances, rank
from multipert.models.explanation import Explanation, explain
from multipert.models.network_model import NetworkModel, OneForEach
from multipert.models.parameters import (
    Range,
    parameter,
    preset_names,
    preset_of,
    preset_values,
    search_space,
    space_in_words,
)
from multipert.models.registry import MODELS, create, load, model_class, register
from multipert.models.run_folder import Arrays
from multipert.models.together import fit_together, fits_at_once
from multipert.models.unseen_baselines import (
    LinearPerturbation,
    MeanPerturbation,
    NearestPerturbation,
    RidgePerturbation,
)

__all__ = [
    "MODELS",
    "Additive",
    "Arrays",
    "Explanation",
    "Linear",
    "LinearPerturbation",
    "MTAe",
    "MTAeAdv",
    "MTAeAdvG",
    "MTAeOT",
    "MTAePlusOT",
    "MTCell",
    "MTVae",
    "MTVaeOT",
    "MTVaePlusOT",
    "MeanPerturbation",
    "MeanShift",
    "Model",
    "NearestContext",
    "NearestPerturbation",
    "NetworkModel",
    "NoChange",
    "OneForEach",
    "Range",
    "Resample",
    "RidgePerturbation",
    "ScButterfly",
    "ScGen",
    "ScPreGAN",
    "ScVIDR",
    "ScVIDRDose",
    "create",
    "dose_response",
    "explain",
    "film_distances",
    "fit_together",
    "fits_at_once",
    "load",
    "model_class",
    "parameter",
    "preset_names",
    "preset_of",
    "preset_values",
    "rank",
    "register",
    "search_space",
    "space_in_words",
]
