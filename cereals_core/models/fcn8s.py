"""FCN8s on VGG16 (Long, Shelhamer, Darrell, CVPR 2015), narrow by a width multiplier, output at stride 8.

Convolutions are padded to keep the size and pooling rounds up, so an image of H x W gives ceil(H/8) x ceil(W/8) cells
for any H and W (our choice; the original pads the image by 100 px and crops).
"""

import math
from collections import OrderedDict
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from cereals_core.models.base import Images, Masks, Network, Outputs, Published, Source
from cereals_core.models.beside import import_beside
from cereals_core.network_settings import Model
from cereals_core.shapes import Float

VGG16_BLOCKS = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
FC_CHANNELS = 4096
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Features(NamedTuple):
    """Input of the head from the trunk: all that no dropout mask touches.

    `fc6`: 4096 w channels at stride 32, after its ReLU; `pool4`, `pool3`: scores at stride 16 and 8.
    """

    fc6: Float[Tensor, "b channels h32 w32"]
    pool4: Float[Tensor, "b outputs h16 w16"]
    pool3: Float[Tensor, "b outputs h8 w8"]


class FCN8s(Network):
    """Fully convolutional network with skips from pool3 and pool4.

    `outputs`: channels of the result, one a class; 1 makes the cost model, a regression of clicks per cell.
    `width`: multiplier of every channel count in (0, 1].
    """

    mask_stride_px = 32
    # Counted in blocks of 32 px, output cell r = 0..3 of block b (its pixels begin at 32 b + 8 r) needs, on its left:
    #   upsampling twice by 4 x 4 kernels    block b - 1 at stride 32, or b for r = 3
    #   fc6, 7 x 7 at stride 32              3 blocks more
    #   pool5, by 3 x 3 convolutions         2 + 4 + 12 + 24 + 48 = 90 px more, which lie within 3 blocks
    # The skips reach less far. So a crop has to begin with block b - 7, or b - 6 for r = 3; that is 216 px before the
    # cell for r = 3, and 208 px, a block less than it takes, do not suffice for r = 2. The right side is the mirror
    # image of this, and so are the rows. At the image's edge zero padding and partial pooling windows are the same in
    # the crop as in the image.
    context_px = 216
    scores = ("score", "upscore")
    mean: Tensor
    std: Tensor

    def __init__(self, outputs: int, width: float = 0.25) -> None:
        super().__init__()
        channels = [[max(8, round(c * width)) for c in block] for block in VGG16_BLOCKS]
        fc = max(8, round(FC_CHANNELS * width))
        self.blocks = nn.ModuleList()
        previous = 3
        for block in channels:
            self.blocks.append(_vgg_block(previous, block))
            previous = block[-1]
        self.fc6 = nn.Conv2d(previous, fc, 7, padding=3)
        self.fc7 = nn.Conv2d(fc, fc, 1)
        self.score = nn.Conv2d(fc, outputs, 1)
        self.score_pool4 = nn.Conv2d(channels[3][-1], outputs, 1)
        self.score_pool3 = nn.Conv2d(channels[2][-1], outputs, 1)
        self.upscore = nn.ConvTranspose2d(outputs, outputs, 4, stride=2, padding=1, bias=False)
        self.upscore_pool4 = nn.ConvTranspose2d(outputs, outputs, 4, stride=2, padding=1, bias=False)
        self.register_buffer("mean", torch.tensor(MEAN).view(1, 3, 1, 1) * 255, persistent=False)
        self.register_buffer("std", torch.tensor(STD).view(1, 3, 1, 1) * 255, persistent=False)

    def initialise(self, generator: torch.Generator) -> None:
        """Draw all weights: He-normal for ReLU layers, LeCun-normal for scores, bilinear upsampling (our choice)."""
        for name, module in self.named_modules():
            if isinstance(module, nn.ConvTranspose2d):
                _bilinear_(module.weight)
            elif isinstance(module, nn.Conv2d):
                gain = 1.0 if name.startswith("score") else math.sqrt(2)
                fan_in = module.weight[0].numel()
                nn.init.normal_(module.weight, std=gain / math.sqrt(fan_in), generator=generator)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    @property
    def pretrained_part(self) -> nn.Module:
        """The layers of VGG16."""
        return nn.ModuleList((self.blocks, self.fc6, self.fc7))

    def trunk(self, images: Images) -> Features:
        """Compute everything before the first dropout from images in [0, 255]."""
        x = (images - self.mean) / self.std
        pools = []
        for block in self.blocks:
            x = block(x)
            pools.append(x)
        return Features(torch.relu(self.fc6(x)), self.score_pool4(pools[3]), self.score_pool3(pools[2]))

    def mask_shapes(self, height: int, width: int) -> list[tuple[int, ...]]:
        """Return the shapes of the dropout masks that `head` takes, after fc6 and after fc7."""
        rows, columns = (-(-side // self.mask_stride_px) for side in (height, width))
        return [(1, self.fc6.out_channels, rows, columns)] * 2

    def head(self, features: Features, masks: Masks | None = None) -> Outputs:
        """Finish the pass; `masks` as from `draw_masks`, None for no dropout."""
        x = features.fc6 if masks is None else features.fc6 * masks[0]
        x = torch.relu(self.fc7(x))
        x = self.score(x if masks is None else x * masks[1])
        x = _crop(self.upscore(x), features.pool4) + features.pool4
        return _crop(self.upscore_pool4(x), features.pool3) + features.pool3

    def source_of(self, weights: Mapping[str, Tensor]) -> Source:
        """Name VGG16's layers; its first two fully connected ones become convolutions (Long et al. 2015)."""
        layers, position = {"fc6": "classifier.0", "fc7": "classifier.3"}, 0
        for block, channels in enumerate(VGG16_BLOCKS):  # convolutions and ReLUs are numbered on, and each pooling
            for conv in range(len(channels)):
                layers[f"blocks.{block}.conv{conv + 1}"] = f"features.{position + 2 * conv}"
            position += 2 * len(channels) + 1
        names = {f"{own}.{kind}": f"{key}.{kind}" for own, key in layers.items() for kind in ("weight", "bias")}
        return Source("torchvision's vgg16 (the one without batch normalisation)", names, ("classifier.6.",))


def _vgg_block(previous: int, channels: list[int]) -> nn.Sequential:
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for index, count in enumerate(channels):
        layers[f"conv{index + 1}"] = nn.Conv2d(previous, count, 3, padding=1)
        layers[f"relu{index + 1}"] = nn.ReLU(inplace=True)
        previous = count
    layers["pool"] = nn.MaxPool2d(2, ceil_mode=True)
    return nn.Sequential(layers)


def _crop(x: Float[Tensor, "b c _ _"], like: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
    return x[..., : like.shape[-2], : like.shape[-1]]


@torch.no_grad()
def _bilinear_(weight: Float[Tensor, "c c 4 4"]) -> None:
    ramp = torch.tensor([0.25, 0.75, 0.75, 0.25])
    weight.zero_()
    for channel in range(weight.shape[0]):
        weight[channel, channel] = ramp[:, None] * ramp[None, :]


def build(model: Model, outputs: int) -> FCN8s:
    """Build the network that the settings describe."""
    return FCN8s(outputs, model.width)


def download(model: Model) -> Published:
    """Fetch VGG16 as torchvision publishes it."""
    weights = import_beside("torchvision.models", model.name).VGG16_Weights.DEFAULT
    return Published(weights.get_state_dict(progress=False), weights.url)
