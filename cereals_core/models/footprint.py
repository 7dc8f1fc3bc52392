"""Memory that a network takes for one image, counted on PyTorch's meta device: shapes alone, nothing is computed."""

import weakref
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from cereals_core.grid import STRIDE_PX
from cereals_core.models.base import Network

Kind = TypeVar("Kind", bound=nn.Module)
KERNELS_SHARE = 1.25
"""Memory of a pass for each byte of tensors alive at its peak: convolutions reorder what they work on. FCN8s at widths
from 0.125 to 1 and ResNet50 took 1.10 to 1.28 (PyTorch 2.13 on a CPU)."""


class LiveTensors(TorchDispatchMode):
    """Counts the bytes of all tensors made within it, as long as they live; views share their storage."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.live_bytes = self.peak_bytes = 0
        self._storages: dict[int, int] = {}

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        made = func(*args, **(kwargs or {}))
        for each in tree_leaves(made):
            if isinstance(each, Tensor):
                self._watch(each.untyped_storage())
        return made

    def _watch(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        if key not in self._storages:
            self._storages[key] = storage.nbytes()
            self.live_bytes += storage.nbytes()
            self.peak_bytes = max(self.peak_bytes, self.live_bytes)
            weakref.finalize(storage, self._forget, key)

    def _forget(self, key: int) -> None:
        self.live_bytes -= self._storages.pop(key)


def outline(build: Callable[[], Kind], precision: torch.dtype = torch.float32) -> Kind:
    """Build a network without memory for its weights, in the number format of its arithmetic."""
    with torch.device("meta"):
        return build().to(precision)


def parameter_bytes(network: nn.Module) -> int:
    """Count the network's weights in float32, as they are trained and saved."""
    return sum(parameter.numel() for parameter in network.parameters()) * torch.float32.itemsize


def training_bytes(network: Network, height: int, width: int, images: int = 1) -> int:
    """Count what a training holds at the peak of a step: weights, gradients, moments, the best weights.

    The step is on so many whole images of one size. `network` is an outline. In another format than float32 (autocast)
    weights and gradients are there twice.
    """
    weights = parameter_bytes(network)
    with LiveTensors() as tensors:
        batch, masks = _images(network, height, width, images)
        output = network(batch, masks)
        functional.log_softmax(output.float(), dim=1).sum().backward()
    network.zero_grad()
    doubled = weights if next(network.parameters()).dtype != torch.float32 else 0
    step, best_changes = 4 * weights + doubled + KERNELS_SHARE * tensors.peak_bytes, 6 * weights
    return round(max(step, best_changes))


def prediction_bytes(network: Network, height: int, width: int, images: int = 1, upsampled: bool = False) -> int:
    """Count what a prediction holds at the peak of a pass over so many images; `upsampled` to their size or not.

    `network` is an outline.
    """
    with torch.no_grad(), LiveTensors() as tensors:
        batch, masks = _images(network, height, width, images)
        output = network(batch, masks).float()
        if upsampled:
            functional.interpolate(output, scale_factor=STRIDE_PX, mode="bilinear").argmax(dim=1)
    return round(parameter_bytes(network) + KERNELS_SHARE * tensors.peak_bytes)


def encoding_bytes(encoder: nn.Module, height: int, width: int, images: int = 1) -> int:
    """Count what an encoder holds at the peak of a pass over so many images; `encoder` is an outline."""
    with torch.no_grad(), LiveTensors() as tensors:
        encoder(torch.zeros((images, 3, height, width), dtype=torch.uint8, device="meta"))
    return round(parameter_bytes(encoder) + KERNELS_SHARE * tensors.peak_bytes)


def _images(network: Network, height: int, width: int, count: int) -> tuple[Any, list[Tensor]]:
    precision = next(network.parameters()).dtype
    shapes = [(count, *shape[1:]) for shape in network.mask_shapes(height, width)]
    return network.example(count, height, width, "meta"), [
        torch.ones(shape, dtype=precision, device="meta") for shape in shapes
    ]
