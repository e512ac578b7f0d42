"""Small networks: layers with a lane axis, FiLM, autoencoders, discriminators."""

from multipert.networks.autoencoder import FilmAutoencoder, FilmVariationalAutoencoder
from multipert.networks.auxiliary_discriminator import AuxiliaryDiscriminator
from multipert.networks.discriminator import LatentDiscriminator, SpectralLinear
from multipert.networks.film import FiLM
from multipert.networks.lanes import Lanes
from multipert.networks.layers import MLP, BatchNorm, Dropout, Layer, LayerNorm, Linear, identity, leaky_relu
from multipert.networks.precision import PRECISIONS, Precision, set_precision
from multipert.networks.sparse import SparseBatch
from multipert.networks.squared_error import sparse_squared_error
from multipert.networks.translator import Translator
from multipert.networks.vae import VariationalAutoencoder
from multipert.networks.variational import GaussianHeads, kl_divergence

__all__ = [
    "MLP",
    "PRECISIONS",
    "AuxiliaryDiscriminator",
    "BatchNorm",
    "Dropout",
    "FiLM",
    "FilmAutoencoder",
    "FilmVariationalAutoencoder",
    "GaussianHeads",
    "Lanes",
    "LatentDiscriminator",
    "Layer",
    "LayerNorm",
    "Linear",
    "Precision",
    "SparseBatch",
    "SpectralLinear",
    "Translator",
    "VariationalAutoencoder",
    "identity",
    "kl_divergence",
    "leaky_relu",
    "set_precision",
    "sparse_squared_error",
]
