"""pretrained: the file of `model.weights`, checked and copied before anything is spent on it."""

from pathlib import Path
from typing import Any

import torch

from cereals_core.errors import SettingsError
from cereals_core.models.build import network_outline
from cereals_core.models.pretrained import fitting_weights
from tasks.running.stage import stage
from tasks.running.takes import Takes
from tasks.running.work import Work
from tasks.store.layout import WEIGHTS
from tasks.store.storage import written_whole


@stage(
    "pretrained",
    version=1,
    depends_on=("model",),
    wanted=lambda settings: settings.model.weights is not None,
    takes=Takes("file", lambda load, number: 1),
    note=lambda facts: f"{facts['parameters']:,} parameters",
)
def pretrained(work: Work) -> None:
    """Keep what the segmentation network takes of the file; from then on the campaign needs the file no more."""
    model = work.campaign.settings.model
    assert model.weights is not None
    weights = fitting_weights(network_outline(model), _read(model.weights), str(model.weights))
    with written_whole(work.folder / WEIGHTS) as stream:
        torch.save(weights, stream)
    work.facts.update(parameters=sum(tensor.numel() for tensor in weights.values()))


def _read(file: Path) -> Any:
    try:
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
