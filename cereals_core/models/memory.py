"""How much memory a network takes, found without computing anything: shapes are followed on the `meta` device."""

from dataclasses import dataclass

import torch
from torch import Tensor

from cereals_core.models.base import Network

BYTES = 4
"""Size of a float32."""


@dataclass(frozen=True)
class Footprint:
    """Bytes of a network's weights; of what one image's pass keeps for the gradient; of the largest array in it."""

    weights: int
    kept: int
    largest: int

    @property
    def training(self) -> int:
        """Peak of a step in bytes: weights, their gradient, Adam's two moments, the best weights, and what is kept.

        The backward pass holds the gradients of two arrays besides.
        """
        return 5 * self.weights + self.kept + 2 * self.largest

    @property
    def prediction(self) -> int:
        """Peak of a pass without gradient in bytes: weights, and input, output and scratch of the largest layer."""
        return self.weights + 3 * self.largest


def footprint(network: Network, height: int, width: int) -> Footprint:
    """Memory of `network`, on the meta device, for an image of `height` x `width` pixels in float32."""
    kept: dict[int, int] = {}
    own = {parameter.untyped_storage()._cdata for parameter in network.parameters()}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            kept[storage._cdata] = storage.nbytes()
        alive.append(tensor)  # an address is not given to another storage
        return tensor

    alive: list[Tensor] = []
    images = torch.empty(1, 3, height, width, device="meta")
    masks = [torch.empty(shape, device="meta") for shape in network.mask_shapes(height, width)]
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        output = network.train()(images, masks)
    weights = sum(parameter.nbytes for parameter in network.parameters())
    return Footprint(weights, sum(kept.values()), max([*kept.values(), output.nbytes]))
