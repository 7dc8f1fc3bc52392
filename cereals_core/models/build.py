"""From settings to networks: one row a model."""

from collections.abc import Callable

import torch

from cereals_core.models.base import Network
from cereals_core.models.fcn8s import FCN8s
from cereals_core.models.torchvision_models import ARCHITECTURES, TorchvisionNetwork
from cereals_core.settings import Model

NETWORKS: dict[str, Callable[[Model, int], Network]] = {
    "fcn8s": lambda model, outputs: FCN8s(outputs, model.width),
    **dict.fromkeys(ARCHITECTURES, lambda model, outputs: TorchvisionNetwork(model.name, outputs)),
}


def build_network(model: Model, outputs: int) -> Network:
    """The segmentation network, one output a class, its weights yet to be set."""
    return NETWORKS[model.name](model, outputs)


def network_outline(model: Model) -> Network:
    """The segmentation network without memory for its weights: to see names and shapes, or that it can be built."""
    with torch.device("meta"):
        return build_network(model, outputs=1)


def build_cost_network(model: Model) -> FCN8s:
    """The cost network, its weights yet to be set: FCN8s with one output, whatever the segmentation network is.

    The paper's cost model has the architecture of its segmentation model, FCN8s; beside another it stands by itself.
    """
    return FCN8s(1, model.width)
