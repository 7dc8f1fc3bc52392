"""Pretrained weights: from the names and shapes of a published state dict to those of a network.

Both sides take images in RGB, scaled to [0, 1], less ImageNet's mean, over its standard deviation.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from torch import Tensor

from cereals_core.errors import SettingsError
from cereals_core.models.base import Network
from cereals_core.models.fcn8s import VGG16_BLOCKS
from cereals_core.models.torchvision_models import TorchvisionNetwork

_COUNTER = "num_batches_tracked"
"""End of the names of batch normalisation's counters, which older files lack and nothing here reads."""

_FULLY_CONNECTED = ("fc6.weight", "fc7.weight")
"""Weights of FCN8s that are (outputs, inputs) in VGG16."""


class _Source(NamedTuple):
    """A kind of file: what it is, its name for each weight of the network, and how the names not needed begin."""

    what: str
    names: dict[str, str]
    unused: tuple[str, ...]


def fitting_weights(network: Network, weights: Any, file: str) -> dict[str, Tensor]:
    """Select what a network takes of the state dict that `file` held, under its own names and in its shapes.

    FCN8s takes torchvision's VGG16, its first two fully connected layers as convolutions (Long et al. 2015). Models of
    torchvision take a whole segmentation model, or the ImageNet classifier of their backbone. Layers that produce
    outputs are never taken: a file's classes are not the campaign's (our choice). The network may be on any
    device, "meta" included.

    Raises SettingsError that names the file and the first name or shape that does not fit.
    """
    whole = isinstance(weights, Mapping) and any(str(key).startswith("backbone.") for key in weights)
    source = _torchvision(network, whole) if isinstance(network, TorchvisionNetwork) else _vgg16()
    own = network.state_dict()
    problem = _not_a_state_dict(weights) or _first_misfit(own, weights, source)
    if problem:
        raise SettingsError(f'model.weights = "{file}": {problem}; give a file of the state_dict() of {source.what}')
    return {name: weights[key].detach().reshape(own[name].shape) for name, key in source.names.items()}


def load_pretrained(network: Network, weights: Mapping[str, Tensor]) -> None:
    """Load what `fitting_weights` returned; statistics of batch normalisation are frozen from then on (our choice)."""
    network.load_state_dict(weights, strict=False)
    if isinstance(network, TorchvisionNetwork):
        network.freeze_statistics()


def _vgg16() -> _Source:
    """Name VGG16's convolutions: they and their ReLUs are numbered through all blocks, a block's pooling after them."""
    layers, position = {"fc6": "classifier.0", "fc7": "classifier.3"}, 0
    for block, channels in enumerate(VGG16_BLOCKS):
        for conv in range(len(channels)):
            layers[f"blocks.{block}.conv{conv + 1}"] = f"features.{position + 2 * conv}"
        position += 2 * len(channels) + 1
    names = {f"{own}.{kind}": f"{key}.{kind}" for own, key in layers.items() for kind in ("weight", "bias")}
    return _Source("torchvision's vgg16 (the one without batch normalisation)", names, ("classifier.6.",))


def _torchvision(network: TorchvisionNetwork, whole: bool) -> _Source:
    """Name the weights of a torchvision file.

    A whole model has our names; an ImageNet classifier's lack `backbone.`, or have `features.` in its place.
    """
    what = f"torchvision's {network.name} or of its backbone trained on ImageNet"
    own = [name for name in network.state_dict() if not name.endswith(_COUNTER)]
    if whole:
        scores = tuple(f"{layer}." for layer in network.architecture.scores)
        names = {name: name for name in own if not name.startswith(scores)}
        return _Source(what, names, ("aux_classifier.", *scores))
    prefix = "features." if "mobilenet" in network.name else ""
    names = {name: prefix + name.removeprefix("backbone.") for name in own if name.startswith("backbone.")}
    return _Source(what, names, ("classifier.", "fc."))


def _not_a_state_dict(weights: Any) -> str:
    if not isinstance(weights, Mapping):
        return f"it holds a {type(weights).__name__}, not a state dict"
    for key, value in weights.items():
        if not (isinstance(key, str) and isinstance(value, Tensor)):
            return f"it holds a {type(value).__name__} under {key!r}, not tensors under their names"
    return ""


def _first_misfit(own: Mapping[str, Tensor], weights: Mapping[str, Tensor], source: _Source) -> str:
    for name, key in source.names.items():
        if key not in weights:
            return f'it has no "{key}"'
        shape = tuple(weights[key].shape)
        expected = tuple((own[name].flatten(1) if name in _FULLY_CONNECTED else own[name]).shape)
        if shape != expected:
            return f'its "{key}" has the shape {shape}, not {expected}'
    unused = [key for key in weights if key.startswith(source.unused) or key.endswith(_COUNTER)]
    unknown = weights.keys() - source.names.values() - set(unused)
    return f'its "{min(unknown)}" belongs to another model' if unknown else ""
