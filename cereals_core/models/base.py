"""What training and prediction ask of a network, whatever its architecture."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from cereals_core.shapes import Float, Real

Images = Real[Tensor, "b 3 h w"]
Masks = list[Float[Tensor, "_ _ _ _"]]
Outputs = Float[Tensor, "b outputs rows columns"]


class Source(NamedTuple):
    """A kind of file with weights: what it is, its name for each weight of a network, and names not needed.

    `unused`: how names begin that belong to the file and not to the network.
    """

    what: str
    names: Mapping[str, str]
    unused: tuple[str, ...] = ()


class Published(NamedTuple):
    """Pretrained weights as they are published: a state dict, where it is from, and its licence, empty if unknown.

    `mean`, `std`: of each channel of the images that they were trained on, for values in [0, 1]; None: as the network
    has them.
    """

    weights: Any
    source: str
    licence: str = ""
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None


class Network(nn.Module, ABC):
    """A network at stride 8, split where its first dropout is: a trunk computed once, and a head cheap to repeat.

    Images are uint8 or float in [0, 255], RGB; the result has ceil(H / 8) rows and ceil(W / 8) columns. Where the trunk
    is frozen, what it computes of an image stands for the image (`models.decoder`).
    """

    mask_stride_px: int
    """Pixels of the image for each position of a dropout mask, per side."""
    context_px: int | None = None
    """Distance from the edge of a crop, itself on the grid of `crop_grid_px`, from which on outputs are those of the
    whole image; None: every output depends on the whole image."""
    crop_grid_px: int = 32
    is_pretrained = False
    """Whether it starts from pretrained weights."""
    scores: tuple[str, ...]
    """How the names of the weights begin that produce outputs, one channel a class."""

    @abstractmethod
    def initialise(self, generator: torch.Generator) -> None:
        """Draw all weights anew."""

    @abstractmethod
    def trunk(self, images: Any) -> Any:
        """Compute everything before the first dropout."""

    @abstractmethod
    def head(self, features: Any, masks: Masks | None = None) -> Outputs:
        """Finish the pass from what `trunk` returned; `masks` as from `draw_masks`, None for no dropout."""

    @abstractmethod
    def mask_shapes(self, height: int, width: int) -> list[tuple[int, ...]]:
        """Return the shapes (1, C, rows, columns) of the masks that `head` takes for an image of `height` x `width`."""

    def forward(self, images: Any, masks: Masks | None = None) -> Outputs:
        """Run trunk and head."""
        return self.head(self.trunk(images), masks)

    def example(self, count: int, height: int, width: int, device: str) -> Any:
        """Return empty inputs for so many images of this size in pixels."""
        return torch.zeros((count, 3, height, width), dtype=torch.uint8, device=device)

    @property
    def pretrained_part(self) -> nn.Module:
        """The part that pretrained weights are for."""
        return self

    def expect_pretrained(self) -> None:
        """Normalise with the statistics that come with pretrained weights, in training too; from now on."""
        self.is_pretrained = True
        self.train(self.training)

    def source_of(self, weights: Mapping[str, Tensor]) -> Source:
        """Tell what a state dict with pretrained weights has to be, and the name there of each weight it gives."""
        raise NotImplementedError

    def copy_all_but_scores(self, other: "Network") -> None:
        """Take every weight of a network of the same architecture but those of the layers that produce outputs."""
        weights = {name: value for name, value in other.state_dict().items() if not name.startswith(self.scores)}
        self.load_state_dict(weights, strict=False)
