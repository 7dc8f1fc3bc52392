"""From settings to networks."""

from importlib import import_module
from typing import Any

import torch
from torch import nn

from cereals_core.models.base import Network, Published
from cereals_core.models.decoder import Decoder
from cereals_core.network_settings import Model
from cereals_core.networks import family_of
from cereals_core.projection import shared_out


def build_network(model: Model, outputs: int) -> Network:
    """Build the network that is trained, its weights yet to be set; without its encoder where that is frozen.

    `outputs`: one a class, or 1 for the cost network, which has the same architecture, as in the paper.
    """
    frozen = model.trunk == "frozen"
    network: Network = Decoder(feature_channels(model), outputs) if frozen else _module(model).build(model, outputs)
    if model.weights is not None and not frozen:
        network.expect_pretrained()
    return network


def build_encoder(model: Model) -> nn.Module:
    """Build the part that a frozen trunk computes once, its weights yet to be set.

    It turns images (b, 3, h, w) in [0, 255] into features at strides 8, 16 and 32, (b, channels, rows, columns) each.
    """
    encoder: nn.Module = _module(model).build_encoder(model)
    return encoder


def feature_channels(model: Model) -> tuple[int, ...]:
    """Tell the channels of the features that are stored, the finest first."""
    channels: tuple[int, ...] = _module(model).feature_channels(model)
    return channels if model.feature_channels is None else shared_out(channels, model.feature_channels)


def network_outline(model: Model) -> Network:
    """Build the whole network without memory for its weights: for names and shapes, or to see that it can be."""
    with torch.device("meta"):
        return build_network(model.model_copy(update={"trunk": "trained", "feature_channels": None}), outputs=1)


def download(model: Model) -> Published:
    """Fetch pretrained weights as the network's library does; what that raises without a way there is its own."""
    published: Published = _module(model).download(model)
    return published


def _module(model: Model) -> Any:
    return import_module(family_of(model.name).module)
