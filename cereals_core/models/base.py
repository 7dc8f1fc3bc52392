"""What training and prediction ask of a network, whatever its architecture."""

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor, nn

from cereals_core.shapes import Float, Real

Images = Real[Tensor, "b 3 h w"]
Masks = list[Float[Tensor, "_ _ _ _"]]
Outputs = Float[Tensor, "b outputs rows columns"]


class Network(nn.Module, ABC):
    """A network at stride 8, split where its first dropout is: a trunk computed once, and a head cheap to repeat.

    Images are uint8 or float in [0, 255], RGB; the result has ceil(H / 8) rows and ceil(W / 8) columns.
    """

    mask_stride_px: int
    """Pixels of the image for each position of a dropout mask, per side."""
    context_px: int | None = None
    """Distance from the edge of a crop, itself on the grid of `crop_grid_px`, from which on outputs are those of the
    whole image; None: every output depends on the whole image."""
    crop_grid_px: int = 32

    @abstractmethod
    def initialise(self, generator: torch.Generator) -> None:
        """Draw all weights anew."""

    @abstractmethod
    def trunk(self, images: Images) -> Any:
        """Compute everything before the first dropout."""

    @abstractmethod
    def head(self, features: Any, masks: Masks | None = None) -> Outputs:
        """Finish the pass from what `trunk` returned; `masks` as from `draw_masks`, None for no dropout."""

    @abstractmethod
    def mask_shapes(self, height: int, width: int) -> list[tuple[int, ...]]:
        """Return the shapes (1, C, rows, columns) of the masks that `head` takes for an image of `height` x `width`."""

    def forward(self, images: Images, masks: Masks | None = None) -> Outputs:
        """Run trunk and head."""
        return self.head(self.trunk(images), masks)
