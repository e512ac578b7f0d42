"""The models: one file a published method, all behind one contract."""

from multipert.models.base import Model, NetworkModel
from multipert.models.baselines import Linear, MeanShift, NearestContext, NoChange, Resample
from multipert.models.mtae import MTAe, MTAeAdv, MTAeAdvG, MTAeOT, MTAePlusOT, MTVae, MTVaeOT, MTVaePlusOT
from multipert.models.parameters import preset_names, preset_values
from multipert.models.registry import MODELS, create, load, model_class
from multipert.models.scbutterfly import ScButterfly
from multipert.models.scgen import ScGen
from multipert.models.scpregan import ScPreGAN
from multipert.models.scvidr import ScVIDR, ScVIDRDose
from multipert.models.together import fit_together, lanes_at_once

__all__ = [
    "MODELS",
    "Linear",
    "MTAe",
    "MTAeAdv",
    "MTAeAdvG",
    "MTAeOT",
    "MTAePlusOT",
    "MTVae",
    "MTVaeOT",
    "MTVaePlusOT",
    "MeanShift",
    "Model",
    "NearestContext",
    "NetworkModel",
    "NoChange",
    "Resample",
    "ScButterfly",
    "ScGen",
    "ScPreGAN",
    "ScVIDR",
    "ScVIDRDose",
    "create",
    "fit_together",
    "lanes_at_once",
    "load",
    "model_class",
    "preset_names",
    "preset_values",
]
