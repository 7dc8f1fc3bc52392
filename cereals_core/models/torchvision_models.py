"""Segmentation models of torchvision behind `Network`: cut where their dropout is, output at stride 8.

torchvision is imported only when such a model is asked for: campaigns with FCN8s do without it.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple, final

import torch
from torch import Tensor, nn
from torch.nn import functional

from cereals_core.grid import STRIDE_PX, map_shape
from cereals_core.models.base import Images, Masks, Network, Outputs, Published, Source
from cereals_core.models.beside import import_beside
from cereals_core.models.encoder import draw_weights
from cereals_core.models.fcn8s import MEAN, STD
from cereals_core.network_settings import Model
from cereals_core.shapes import Float


class Architecture(NamedTuple):
    """Place where torchvision's classifier (all that follows the backbone) is cut, and what it gives."""

    behind_dropout: int | None
    """Index of the classifier's first layer behind the dropout; None where there is no dropout."""
    stride_px: int
    scores: tuple[str, ...]
    """Names of the layers that produce outputs, one channel a class."""


_FCN = Architecture(4, 8, ("classifier.4",))
_DEEPLAB = Architecture(1, 8, ("classifier.4",))
ARCHITECTURES = {
    "fcn_resnet50": _FCN,
    "fcn_resnet101": _FCN,
    "deeplabv3_resnet50": _DEEPLAB,
    "deeplabv3_resnet101": _DEEPLAB,
    "deeplabv3_mobilenet_v3_large": _DEEPLAB._replace(stride_px=16),
    "lraspp_mobilenet_v3_large": Architecture(None, 8, ("classifier.low_classifier", "classifier.high_classifier")),
}


class Features(NamedTuple):
    """Input of the head from the trunk.

    `values`: at the model's own stride, up to its dropout; `cells`: rows and columns of the result.
    """

    values: Float[Tensor, "b channels rows columns"]
    cells: tuple[int, int]


@final
class TorchvisionNetwork(Network):
    """One of `ARCHITECTURES`, without its auxiliary classifier; its weights have torchvision's own names.

    `outputs`: channels of the result, one a class. A model at stride 16 is upsampled bilinearly to stride 8, a cell of
    16 px becoming 2 x 2 cells of 8 px (our choice; torchvision upsamples to the image's size). LRASPP has no dropout:
    all of it is trunk.

    Batch normalisation in training (our choice): from scratch it takes the statistics of the one image of a step, so
    one side of it must exceed 16 px; the layer behind DeepLab's global pooling sees one value a channel and
    keeps its running statistics, those of `initialise`. From pretrained weights all statistics are frozen.

    CUDA's bilinear upsampling sums gradients in any order: there, trainings of DeepLab and LRASPP repeat to rounding
    only.

    Raises LibraryError where torchvision cannot be imported.
    """

    classifier: Any
    mean: Tensor
    std: Tensor

    def __init__(self, name: str, outputs: int) -> None:
        super().__init__()
        self.name, self.architecture = name, ARCHITECTURES[name]
        self.mask_stride_px = self.architecture.stride_px
        self.scores = tuple(f"{layer}." for layer in self.architecture.scores)
        model = _build(name, outputs)
        cut = self.architecture.behind_dropout is not None
        self.backbone, self.classifier = model.backbone, nn.Sequential(*model.classifier) if cut else model.classifier
        for module in self.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0  # masks are an argument
        self.register_buffer("mean", torch.tensor(MEAN).view(1, 3, 1, 1) * 255, persistent=False)
        self.register_buffer("std", torch.tensor(STD).view(1, 3, 1, 1) * 255, persistent=False)
        self.train()

    def initialise(self, generator: torch.Generator) -> None:
        """Draw all weights, by `draw_weights`."""
        draw_weights(self.modules(), generator)

    @property
    def pretrained_part(self) -> nn.Module:
        """The backbone."""
        backbone: nn.Module = self.backbone
        return backbone

    def train(self, mode: bool = True) -> "TorchvisionNetwork":
        """Set training mode, but for the batch normalisation that keeps its running statistics."""
        super().train(mode)
        for module in self.modules():
            frozen = self.is_pretrained and isinstance(module, nn.BatchNorm2d)
            if frozen or (isinstance(module, nn.Sequential) and isinstance(module[0], nn.AdaptiveAvgPool2d)):
                module.eval()
        return self

    def source_of(self, weights: Mapping[str, Tensor]) -> Source:
        """Name torchvision's weights: those of a whole model, or of an ImageNet classifier for the backbone.

        A whole model has our names; an ImageNet classifier's lack `backbone.`, or have `features.` in its place.
        """
        what = f"torchvision's {self.name} or of its backbone trained on ImageNet"
        if any(name.startswith("backbone.") for name in weights):
            names = {name: name for name in self.state_dict() if not name.startswith(self.scores)}
            return Source(what, names, ("aux_classifier.", *self.scores))
        prefix = "features." if "mobilenet" in self.name else ""
        own = (name for name in self.state_dict() if name.startswith("backbone."))
        return Source(what, {name: prefix + name.removeprefix("backbone.") for name in own}, ("classifier.", "fc."))

    def trunk(self, images: Images) -> Features:
        """Compute everything before the dropout from images in [0, 255]."""
        maps = self.backbone((images - self.mean) / self.std)
        behind = self.architecture.behind_dropout
        values = self.classifier(maps) if behind is None else self.classifier[:behind](maps["out"])
        return Features(values, map_shape(images.shape[-2], images.shape[-1]))

    def mask_shapes(self, height: int, width: int) -> list[tuple[int, ...]]:
        """Return the shape of the one dropout mask that `head` takes; none for a model without dropout."""
        behind = self.architecture.behind_dropout
        if behind is None:
            return []
        rows, columns = (-(-side // self.mask_stride_px) for side in (height, width))
        return [(1, self.classifier[behind].in_channels, rows, columns)]

    def head(self, features: Features, masks: Masks | None = None) -> Outputs:
        """Finish the pass; `masks` as from `draw_masks`, None for no dropout."""
        x = features.values * masks[0] if masks else features.values
        if self.architecture.behind_dropout is not None:
            x = self.classifier[self.architecture.behind_dropout :](x)
        if self.architecture.stride_px > STRIDE_PX:
            x = functional.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
        rows, columns = features.cells
        return x[..., :rows, :columns]


_SEGMENTATION = "torchvision.models.segmentation"


def _build(name: str, outputs: int) -> Any:
    build = getattr(import_beside(_SEGMENTATION, name), name)
    return build(weights=None, weights_backbone=None, num_classes=outputs, aux_loss=False)


def build(model: Model, outputs: int) -> TorchvisionNetwork:
    """Build the network that the settings name."""
    return TorchvisionNetwork(model.name, outputs)


def download(model: Model) -> Published:
    """Fetch the whole model as torchvision publishes it: trained on a part of COCO, with the classes of VOC."""
    weights = import_beside("torchvision.models", model.name).get_model_weights(model.name).DEFAULT
    return Published(weights.get_state_dict(progress=False), weights.url)
