"""Whole networks of segmentation_models_pytorch behind `Network`: encoder and decoder, cut before the last convolution.

The library is imported only when such a network is asked for.
"""

from collections.abc import Mapping
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from cereals_core.errors import SettingsError
from cereals_core.grid import STRIDE_PX, map_shape
from cereals_core.models.base import Images, Masks, Outputs, Published, Source
from cereals_core.models.beside import import_beside
from cereals_core.models.encoder import COARSEST_PX, EncoderNetwork, Preparation, draw_weights, made_on_cpu
from cereals_core.models.fcn8s import MEAN, STD
from cereals_core.network_settings import Model
from cereals_core.shapes import Float

_TRIED_PX = 2 * COARSEST_PX


class SmpNetwork(EncoderNetwork):
    """An architecture of segmentation_models_pytorch on one of its encoders, output at stride 8.

    The decoder's features are brought to stride 8, finer ones by averages and coarser ones bilinearly, before
    dropout and the library's last convolution (our choice; the library puts out scores at stride 1 to 8 and upsamples
    them). Dropout inside of a decoder is off: masks are an argument.

    SettingsError for a name that the library does not know.
    """

    mask_stride_px = STRIDE_PX
    scores = ("model.segmentation_head.",)

    def __init__(self, name: str, outputs: int) -> None:
        super().__init__()
        self.name, self.channels = name, _decoded_channels(name)
        self.preparation, self.model = Preparation(MEAN, STD), _create(name, outputs)
        for module in self.modules():
            if isinstance(module, nn.Dropout | nn.Dropout2d):
                module.p = 0.0

    @property
    def pretrained_part(self) -> nn.Module:
        """The encoder."""
        encoder: nn.Module = self.model.encoder
        return encoder

    def initialise(self, generator: torch.Generator) -> None:
        """Draw all weights, by `draw_weights`."""
        draw_weights(self.model.modules(), generator)

    def trunk(self, images: Images) -> Float[Tensor, "b c rows columns"]:
        """Compute everything before the dropout from images in [0, 255]."""
        x = self.preparation(images)
        decoded = self.model.decoder(self.model.encoder(x))
        cells = tuple(side // STRIDE_PX for side in x.shape[-2:])
        if decoded.shape[-2] < cells[0]:
            decoded = functional.interpolate(decoded, cells, mode="bilinear", align_corners=False)
        elif decoded.shape[-2] > cells[0]:
            decoded = functional.avg_pool2d(decoded, decoded.shape[-2] // cells[0])
        rows, columns = map_shape(images.shape[-2], images.shape[-1])
        return decoded[..., :rows, :columns]

    def mask_shapes(self, height: int, width: int) -> list[tuple[int, ...]]:
        """Return the shape of the one dropout mask that `head` takes."""
        return [(1, self.channels, *map_shape(height, width))]

    def head(self, features: Float[Tensor, "b c rows columns"], masks: Masks | None = None) -> Outputs:
        """Finish the pass; `masks` as from `draw_masks`, None for no dropout."""
        scores: Tensor = self.model.segmentation_head[0](features * masks[0] if masks else features)
        return scores

    def source_of(self, weights: Mapping[str, Tensor]) -> Source:
        """Name the library's weights: those of a whole network, or of an encoder, its classifier not among them."""
        what = f"segmentation_models_pytorch's {self.name.partition(':')[2]}, or of its encoder"
        own = [name for name in self.state_dict() if name.startswith("model.")]
        if any(name.startswith("decoder.") for name in weights):
            names = {name: name.removeprefix("model.") for name in own if not name.startswith(self.scores)}
            return Source(what, names, ("segmentation_head.",))
        prefix, inner = "model.encoder.", "model." if _parts(self.name)[1].startswith("tu-") else ""
        names = {name: name.removeprefix(prefix + inner) for name in own if name.startswith(prefix)}
        return Source(what, names, ("fc.", "classifier.", "head.", "conv_head.", "bn2."))


@cache
def _decoded_channels(name: str) -> int:
    """Tell the channels before the last convolution."""
    with torch.device("meta"), torch.no_grad():
        tried = _create(name, 1).eval()
        features = tried.decoder(tried.encoder(torch.empty(1, 3, _TRIED_PX, _TRIED_PX)))
    return features.shape[1]


def _create(name: str, outputs: int) -> Any:
    architecture, encoder = _parts(name)
    try:
        create, options = _smp(name).create_model, {"encoder_weights": None, "classes": outputs}
        return made_on_cpu(lambda: create(architecture, encoder_name=encoder, **options))
    except Exception as error:  # noqa: BLE001  (architectures refuse encoders in their own ways)
        said = " ".join(str(error).split()) or type(error).__name__
        raise SettingsError(f'model.name = "{name}": segmentation_models_pytorch has none such: {said[:500]}') from None


def _parts(name: str) -> tuple[str, str]:
    architecture, encoder = name.partition(":")[2].split("/")
    return architecture, encoder


def _smp(name: str) -> Any:
    return import_beside("segmentation_models_pytorch", name)


def build(model: Model, outputs: int) -> SmpNetwork:
    """Build the network that the settings name."""
    return SmpNetwork(model.name, outputs)


def download(model: Model) -> Published:
    """Fetch the encoder as the library publishes it, trained on ImageNet."""
    encoders, (_, name) = _smp(model.name).encoders, _parts(model.name)
    config = encoders.get_preprocessing_params(name, pretrained="imagenet")
    scale = 1.0 if config["input_range"] == [0, 1] else 1 / 255
    mean, std = (tuple(scale * each for each in config[key]) for key in ("mean", "std"))
    weights = encoders.get_encoder(name, weights="imagenet").state_dict()
    inner = "model." if name.startswith("tu-") else ""
    named = {key.removeprefix(inner): value for key, value in weights.items()}
    return Published(named, f"segmentation_models_pytorch {name} imagenet", mean=mean, std=std)
