"""The networks that there are, by name, and what settings have to know of them; nothing here needs torch."""

from typing import NamedTuple


class Family(NamedTuple):
    """Networks of one file: `module.build(model, outputs)` makes one.

    `has_dropout`: measures over dropout samples can be had. `is_local`: outputs have a finite receptive field and no
    batch normalisation, so that `training.method = "cropping"` can be. `needs`: the package beside torch that it takes.
    """

    module: str
    has_dropout: bool = True
    is_local: bool = False
    needs: str = ""


_TORCHVISION = Family("cereals_core.models.torchvision_models", needs="torchvision")
NETWORKS = {
    "fcn8s": Family("cereals_core.models.fcn8s", is_local=True),
    "fcn_resnet50": _TORCHVISION,
    "fcn_resnet101": _TORCHVISION,
    "deeplabv3_resnet50": _TORCHVISION,
    "deeplabv3_resnet101": _TORCHVISION,
    "deeplabv3_mobilenet_v3_large": _TORCHVISION,
    "lraspp_mobilenet_v3_large": _TORCHVISION._replace(has_dropout=False),
}
