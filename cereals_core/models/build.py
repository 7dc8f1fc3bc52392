"""From settings to networks."""

from importlib import import_module

import torch

from cereals_core.models.base import Network
from cereals_core.models.fcn8s import FCN8s
from cereals_core.networks import NETWORKS
from cereals_core.settings import Model


def build_network(model: Model, outputs: int) -> Network:
    """Build the segmentation network, one output a class, its weights yet to be set."""
    network: Network = import_module(NETWORKS[model.name].module).build(model, outputs)
    return network


def network_outline(model: Model) -> Network:
    """Build the segmentation network without memory for its weights: for names and shapes, or to see that it can be."""
    with torch.device("meta"):
        return build_network(model, outputs=1)


def build_cost_network(model: Model) -> FCN8s:
    """Build the cost network, its weights yet to be set: FCN8s with one output, whatever the segmentation network is.

    The paper's cost model has the architecture of its segmentation model, FCN8s; beside another it stands by itself.
    """
    return FCN8s(1, model.width)
