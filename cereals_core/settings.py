"""What a campaign file may say: every key, its default, its range, and what goes together."""

import os
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from cereals_core.acquisition_settings import Acquisition
from cereals_core.data_settings import Data, Section
from cereals_core.location import Location, open_location
from cereals_core.network_settings import RECIPES, Model, Training
from cereals_core.networks import family_of

ADDRESS = r"(tcp|tls|ucx|ws|wss)://\S+"
"""Addresses of Dask schedulers."""
NAME = r"^[a-z0-9]+(-[a-z0-9]+)*$"
"""What may name a campaign, a study or an arm of one."""


class Stop(Section):
    """When the campaign ends: at the first of these. They may be changed between runs of a campaign."""

    rounds: int = Field(10, ge=0, le=10**5)
    """Rounds of queries; the models are trained and evaluated once more after the last."""
    clicks: float | None = Field(None, gt=0)
    """Budget: stop once the oracle's true clicks (polygon vertices) reach it."""
    target_miou: float | None = Field(None, gt=0, le=1)
    converged_rounds: int | None = Field(None, gt=0)
    """Stop when the mIoU has not risen by `min_gain` over the best before for so many rounds."""
    min_gain: float = Field(0.002, ge=0)


class Compute(Section):
    """How the work is done; nothing here decides what comes of it, and all may be changed between runs."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    cluster: str = Field("auto", pattern=f"^(auto|none|local|{ADDRESS})$")
    """Where stages run. "none": in the process of the campaign; "local": on Dask workers of this machine, one for each
    CUDA device and one for all else; an address: on those of a Dask scheduler; "auto": "local" if there are several
    CUDA devices, else "none"."""
    threads: int = Field(0, ge=0, le=2**10)
    """CPU threads for the networks; 0: as many as there are cores. Ledgers agree bit for bit at equal counts only."""
    shard_images: int = Field(32, gt=0)
    """Images in a shard of maps, which is one Zarr chunk and one unit of resuming."""

    @property
    def cpu_threads(self) -> int:
        """CPU threads to use: `threads`, or one for each core that this process may have."""
        return self.threads or len(os.sched_getaffinity(0))


class SettingsFile(Section):
    """What campaign files and study files have in common."""

    home: ClassVar[str]
    """Name of the folder, in the working directory, for what gives no folder of its own."""
    name: str = Field(pattern=NAME, max_length=200)
    """Lower case letters, digits and dashes: it names flow runs and artifacts."""
    folder: Location | None = None
    """Where it is kept: a folder, or a prefix of an object store (`s3://bucket/prefix`); absent: `<home>/<name>`."""
    data: Data
    model: Model = Model()
    training: Training = Training()
    acquisition: Acquisition = Acquisition()
    stop: Stop = Stop()
    compute: Compute = Compute()

    @model_validator(mode="before")
    @classmethod
    def _by_recipe(cls, raw: Any) -> Any:
        """Fill in what `training.recipe` means for this trunk, beside keys that are given."""
        training, model = (raw.get(key, {}) if isinstance(raw, dict) else None for key in ("training", "model"))
        if not (isinstance(training, dict) and isinstance(model, dict)):
            return raw
        meant = RECIPES.get((str(training.get("recipe")), str(model.get("trunk", "trained"))), {})
        return {**raw, "training": {**meant, **training}} if meant else raw

    @property
    def path(self) -> Path:
        """The folder where it is kept."""
        return open_location(str(self.folder or f"{self.home}/{self.name}"))


class CampaignSettings(SettingsFile):
    """One campaign file (TOML)."""

    home = "campaigns"
    seed: int = Field(0, ge=0, lt=2**53)

    @model_validator(mode="after")
    def _model_can(self) -> "CampaignSettings":
        mistakes, family = [], family_of(self.model.name)
        if self.acquisition.needs_dropout and not (family.has_dropout and self.model.dropout > 0):
            mistakes.append(
                f'acquisition.information = "{self.acquisition.information}" needs dropout, which model.name = '
                f'"{self.model.name}" with model.dropout = {self.model.dropout} lacks; take "entropy" or another model'
            )
        frozen, training = self.model.trunk == "frozen", self.training
        if training.method == "cropping" and (frozen or not family.is_local):
            mistakes.append(
                f'training.method = "cropping" needs a finite receptive field and no batch normalisation, which '
                f'model.name = "{self.model.name}" lacks; take "masking" or "fcn8s"'
            )
        if training.batch == "windows" and training.context_px is None and not (frozen or family.is_local):
            mistakes.append(
                f'training.batch = "windows" needs to know how far outputs of model.name = "{self.model.name}" see, '
                'which is everything; set training.context_px = 32 to cut windows out all the same, or batch = "images"'
            )
        if mistakes:
            raise ValueError("; ".join(mistakes))
        return self


def other_trunk(settings: CampaignSettings) -> CampaignSettings | None:
    """Return the same campaign with its trunk trained where it is frozen, and the other way round, by the same recipe.

    None where the network has no encoder apart, or no pretrained weights.
    """
    model, training = settings.model, settings.training
    if model.weights is None or not family_of(model.name).has_encoder:
        return None
    other = {"trained": "frozen", "frozen": "trained"}[model.trunk]
    changed = {
        "model": {**model.model_dump(), "trunk": other, "feature_channels": None},
        "training": {"recipe": training.recipe} if training.recipe == "practical" else training.model_dump(),
    }
    return CampaignSettings.model_validate(settings.model_dump(exclude=set(changed)) | changed)


def changes_between(old: CampaignSettings, new: CampaignSettings) -> list[str]:
    """List as `key: old -> new` the settings that decide a campaign's results and differ."""
    before, after = (_flatten(deciding_settings(settings)) for settings in (old, new))
    return [
        f"{key}: {before.get(key, '(absent)')} -> {after.get(key, '(absent)')}"
        for key in sorted(before.keys() | after.keys())
        if before.get(key) != after.get(key)
    ]


def deciding_settings(settings: CampaignSettings) -> dict[str, Any]:
    """Return the settings that results depend on: not where things are, how to compute, or when to stop."""
    return settings.model_dump(
        mode="json",
        exclude={
            "folder": True,
            "stop": True,
            "data": {"root"},
            "training": {"recipe"},
            "acquisition": {"strategy"},
            "compute": True,
        },
    )


def _flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat.update(_flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value})
    return flat
