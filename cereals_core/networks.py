"""The networks that there are, by name, and what settings have to know of them; nothing here needs torch."""

import re
from typing import NamedTuple


class Family(NamedTuple):
    """Networks of one file: `module.build(model, outputs)` makes one, `module.download(model)` fetches its weights.

    `names`: pattern of the names it answers to; `said`: how they are told to people; `weights`: what pretrained weights
    it takes. `has_dropout`: measures over dropout samples can be had. `is_local`: outputs have a finite receptive field
    and no batch normalisation, so that `training.method = "cropping"` can be. `has_encoder`:
    `module.build_encoder(model)` and `module.feature_channels(model)` make and describe the part that
    `model.trunk = "frozen"` computes once. `needs`: the package beside torch that it takes.
    """

    module: str
    names: str
    said: str
    weights: str
    has_dropout: bool = True
    is_local: bool = False
    has_encoder: bool = False
    needs: str = ""


_TORCHVISION = Family(
    "cereals_core.models.torchvision_models",
    "(fcn|deeplabv3)_resnet(50|101)|deeplabv3_mobilenet_v3_large",
    "fcn_resnet50, fcn_resnet101, deeplabv3_resnet50, deeplabv3_resnet101, deeplabv3_mobilenet_v3_large",
    weights="the model of torchvision, or the ImageNet classifier of its backbone",
    needs="torchvision",
)
FAMILIES = (
    Family("cereals_core.models.fcn8s", "fcn8s", "fcn8s", weights="VGG16 of torchvision", is_local=True),
    _TORCHVISION,
    _TORCHVISION._replace(names="lraspp_mobilenet_v3_large", said="lraspp_mobilenet_v3_large", has_dropout=False),
    Family(
        "cereals_core.models.timm_models",
        r"timm:[\w.-]+",
        "timm:ENCODER",
        weights="the classifier of timm",
        has_encoder=True,
        needs="timm",
    ),
    Family(
        "cereals_core.models.smp_models",
        r"smp:\w+/[\w.-]+",
        "smp:ARCHITECTURE/ENCODER",
        weights="the encoder, or the whole network of segmentation_models_pytorch",
        needs="segmentation_models_pytorch",
    ),
)


def family_of(name: str) -> Family:
    """Return the family of a network's name, the value of `model.name`; ValueError lists what there is."""
    for family in FAMILIES:
        if re.fullmatch(family.names, name):
            return family
    raise ValueError(f"no such network; there are {', '.join(each.said for each in FAMILIES)}")
