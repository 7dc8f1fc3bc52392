"""Encoders of timm under our decoder: any of them that gives features at strides 8, 16 and 32.

timm is imported only when such a network is asked for.
"""

from collections.abc import Mapping
from difflib import get_close_matches
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from cereals_core.errors import SettingsError
from cereals_core.grid import FEATURE_STRIDES_PX
from cereals_core.models.base import Images, Masks, Outputs, Published, Source
from cereals_core.models.beside import import_beside
from cereals_core.models.decoder import Decoder, Features
from cereals_core.models.encoder import COARSEST_PX, EncoderNetwork, Preparation, draw_weights, made_on_cpu
from cereals_core.network_settings import Model
from cereals_core.shapes import Float

PREFIX = "timm:"
_TRIED_PX = (2 * COARSEST_PX, 3 * COARSEST_PX)
"""Size of the image on whose shapes an encoder is tried."""


class Encoder(nn.Module):
    """An encoder of timm: from images in [0, 255] to `Features`; its weights have timm's own names, or nearly so.

    SettingsError for a name that timm does not know, and for an encoder that cannot serve: without features at strides
    8, 16 and 32, or for images of one size only.
    """

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name, kind = name, _kind_of(name)
        self.preparation = Preparation(kind.mean, kind.std)
        self.body = _create(name, features_only=True, out_indices=kind.places)

    def forward(self, images: Images) -> Features:
        """Compute the features of images of one size."""
        found = self.body(self.preparation(images))
        return Features(
            *(_cut(each, images, stride_px) for each, stride_px in zip(found, FEATURE_STRIDES_PX, strict=True))
        )


def _cut(features: Tensor, images: Tensor, stride_px: int) -> Tensor:
    """Cut off what lies wholly beyond the image."""
    rows, columns = (-(-side // stride_px) for side in images.shape[-2:])
    return features[..., :rows, :columns]


class TimmNetwork(EncoderNetwork):
    """An encoder of timm under our decoder, trained as a whole."""

    scores = ("decoder.score.",)

    def __init__(self, name: str, outputs: int) -> None:
        super().__init__()
        self.encoder, self.decoder = Encoder(name), Decoder(_kind_of(name).channels, outputs)
        self.mask_stride_px = self.decoder.mask_stride_px

    @property
    def pretrained_part(self) -> nn.Module:
        """The encoder."""
        return self.encoder

    def initialise(self, generator: torch.Generator) -> None:
        """Draw all weights: the encoder's by `draw_weights`, then the decoder's."""
        draw_weights(self.encoder.modules(), generator)
        self.decoder.initialise(generator)

    def trunk(self, images: Images) -> Float[Tensor, "b c rows columns"]:
        """Compute everything before the dropout from images in [0, 255]."""
        features: Float[Tensor, "b c rows columns"] = self.decoder.trunk(self.encoder(images))
        return features

    def mask_shapes(self, height: int, width: int) -> list[tuple[int, ...]]:
        """Return the shape of the one dropout mask that `head` takes."""
        return self.decoder.mask_shapes(height, width)

    def head(self, features: Float[Tensor, "b c rows columns"], masks: Masks | None = None) -> Outputs:
        """Finish the pass; `masks` as from `draw_masks`, None for no dropout."""
        return self.decoder.head(features, masks)

    def source_of(self, weights: Mapping[str, Tensor]) -> Source:
        """Name the weights of timm's classifier, of which the encoder is a part; their names differ in dots at most."""
        plain, prefix = {key.replace(".", "_"): key for key in weights}, "encoder.body."
        own = [name for name in self.state_dict() if name.startswith(prefix)]
        names = {name: name.removeprefix(prefix) for name in own}
        found = {name: plain.get(key.replace(".", "_"), key) for name, key in names.items()}
        with torch.device("meta"):
            rest = _create(self.encoder.name).state_dict()
        return Source(f"timm's {_plain(self.encoder.name)}", found, tuple(rest))


class _Kind(NamedTuple):
    """What is known of an encoder by its name: places and channels of its features, and its images' mean and std."""

    places: list[int]
    channels: tuple[int, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]


@cache
def _kind_of(name: str) -> _Kind:
    timm, plain = _timm(name), _plain(name)
    try:
        with torch.device("meta"):
            tried = _create(name, features_only=True)
    except Exception as error:  # noqa: BLE001  (every architecture of timm refuses in its own way)
        raise SettingsError(f'model.name = "{name}": {_why_not(timm, plain, error)}') from None
    strides_px = list(tried.feature_info.reduction())
    if not set(FEATURE_STRIDES_PX) <= set(strides_px):
        raise SettingsError(
            f'model.name = "{name}": its features are at strides {sorted(set(strides_px))}, and those at '
            f'{list(FEATURE_STRIDES_PX)} are needed; take another encoder, "timm:tf_efficientnet_lite0" for one'
        )
    places = [len(strides_px) - 1 - strides_px[::-1].index(stride_px) for stride_px in FEATURE_STRIDES_PX]
    found = _shapes(name, tried, places)
    config = timm.get_pretrained_cfg(plain)
    return _Kind(places, found, tuple(config.mean), tuple(config.std))


def _shapes(name: str, tried: Any, places: list[int]) -> tuple[int, ...]:
    """Return the channels of the features; SettingsError where they are not of the sizes that are needed."""
    try:
        with torch.device("meta"), torch.no_grad():
            found = [tuple(tried(torch.empty(1, 3, *_TRIED_PX))[place].shape) for place in places]
    except Exception as error:  # noqa: BLE001  (it may ask for images of one size, or anything else)
        said = next(iter(str(error).splitlines()), type(error).__name__)
        raise SettingsError(
            f'model.name = "{name}": does not take images of any size ({said}); take another encoder'
        ) from None
    expected = [tuple(-(-side // stride_px) for side in _TRIED_PX) for stride_px in FEATURE_STRIDES_PX]
    if [shape[2:] for shape in found] != expected:
        raise SettingsError(
            f'model.name = "{name}": of an image of {_TRIED_PX[0]} x {_TRIED_PX[1]} px its features have the shapes '
            f"{found}; (1, channels, *size) with the sizes {expected} are needed; take another encoder"
        )
    return tuple(shape[1] for shape in found)


def _why_not(timm: Any, plain: str, error: Exception) -> str:
    known = timm.list_models()
    if plain.partition(".")[0] not in known:
        near = get_close_matches(plain, known, n=3)
        return "timm knows no such model" + (f"; it knows {', '.join(near)}" if near else "; see timm.list_models()")
    said = next(iter(str(error).splitlines()), type(error).__name__)
    return f"has no features_only in timm ({said}); take another encoder"


def _create(name: str, **options: Any) -> Any:
    return made_on_cpu(lambda: _timm(name).create_model(_plain(name), **options))


def _plain(name: str) -> str:
    return name.removeprefix(PREFIX)


def _timm(name: str) -> Any:
    return import_beside("timm", name)


def build(model: Model, outputs: int) -> TimmNetwork:
    """Build the network that the settings name."""
    return TimmNetwork(model.name, outputs)


def build_encoder(model: Model) -> Encoder:
    """Build the encoder that the settings name."""
    return Encoder(model.name).eval()


def feature_channels(model: Model) -> tuple[int, ...]:
    """Tell the channels of the features that the encoder gives, the finest first."""
    return _kind_of(model.name).channels


def download(model: Model) -> Published:
    """Fetch the classifier as timm publishes it on the Hugging Face hub."""
    timm, plain = _timm(model.name), _plain(model.name)
    config = timm.get_pretrained_cfg(plain)
    source = f"hf-hub:{config.hf_hub_id}" if config.hf_hub_id else str(config.url)
    return Published(timm.create_model(plain, pretrained=True).state_dict(), source, config.license or "")
