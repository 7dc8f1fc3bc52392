"""Pretrained weights: from the names and shapes of a published state dict to those of a network."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from cereals_core.errors import SettingsError
from cereals_core.models.base import Network, Published, Source

_COUNTER = "num_batches_tracked"
"""End of the names of batch normalisation's counters, which older files lack and nothing here reads."""


def fitting_weights(network: Network, published: Published, said: str) -> dict[str, Tensor]:
    """Select what a network takes of published weights, under its own names and in its shapes.

    What they have to be, the network says (`Network.source_of`). Layers that produce outputs are never taken: their
    classes are not the campaign's (our choice). The network may be on any device, "meta" included.

    Raises SettingsError with `said`, the value of `model.weights`, and the first name or shape that does not fit.
    """
    weights, own = published.weights, network.state_dict()
    problem = _not_a_state_dict(weights)
    source = network.source_of({} if problem else weights)
    names = {name: key for name, key in source.names.items() if not name.endswith(_COUNTER)}
    problem = problem or _first_misfit(own, weights, source._replace(names=names))
    if problem:
        raise SettingsError(f'model.weights = "{said}": {problem}; give a file of the state_dict() of {source.what}')
    fitting = {name: weights[key].detach().reshape(own[name].shape) for name, key in names.items()}
    return fitting | _preparation(own, published)


def _preparation(own: Mapping[str, Tensor], published: Published) -> dict[str, Tensor]:
    """Return the mean and std that the weights come with, under the network's names."""
    given = {"preparation.mean": published.mean, "preparation.std": published.std}
    return {
        name: torch.tensor(values).view(1, 3, 1, 1) * 255
        for ending, values in given.items()
        for name in own
        if values is not None and name.endswith(ending)
    }


def _not_a_state_dict(weights: Any) -> str:
    if not isinstance(weights, Mapping):
        return f"it holds a {type(weights).__name__}, not a state dict"
    for key, value in weights.items():
        if not (isinstance(key, str) and isinstance(value, Tensor)):
            return f"it holds a {type(value).__name__} under {key!r}, not tensors under their names"
    return ""


def _first_misfit(own: Mapping[str, Tensor], weights: Mapping[str, Tensor], source: Source) -> str:
    for name, key in source.names.items():
        if key not in weights:
            return f'it has no "{key}"'
        shape, expected = tuple(weights[key].shape), tuple(own[name].shape)
        flat = tuple(own[name].flatten(1).shape) if own[name].ndim > 2 else expected  # a layer before it was convolved
        if shape not in (expected, flat):
            said = flat if len(shape) == len(flat) else expected
            return f'its "{key}" has the shape {shape}, not {said}'
    unused = [key for key in weights if key.startswith(source.unused) or key.endswith(_COUNTER)]
    unknown = weights.keys() - source.names.values() - set(unused)
    return f'its "{min(unknown)}" belongs to another model' if unknown else ""
