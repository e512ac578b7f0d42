"""From an AnnData to checked data: conditions, contexts, splits, preprocessing, public datasets and a simulator."""

from multipert.data.catalogue import DATASETS, Dataset, Part, cache_folder, dataset, fetch, find, locate, register
from multipert.data.conditions import Keys
from multipert.data.files import atomic_path, check_writable, read_h5ad, write_h5ad, write_text
from multipert.data.offers import offer
from multipert.data.perturbation_data import PerturbationData
from multipert.data.preprocessing import preprocess, training_mask
from multipert.data.simulation import simulate
from multipert.data.splits import Split, leave_context_out, train_on_everything

__all__ = [
    "DATASETS",
    "Dataset",
    "Keys",
    "Part",
    "PerturbationData",
    "Split",
    "atomic_path",
    "cache_folder",
    "check_writable",
    "dataset",
    "fetch",
    "find",
    "leave_context_out",
    "locate",
    "offer",
    "preprocess",
    "read_h5ad",
    "register",
    "simulate",
    "train_on_everything",
    "training_mask",
    "write_h5ad",
    "write_text",
]
