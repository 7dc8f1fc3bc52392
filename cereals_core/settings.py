"""What a campaign file may say: every key, its default, its range; all mistakes are reported at once."""

import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from cereals_core.errors import SettingsError
from cereals_core.grid import STRIDE_PX


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _FilesOnDisk(_Section):
    root: Path
    """Folder of the data set, relative to the working directory; it may move between runs."""
    scale: float = Field(1.0, gt=0, le=1)
    """Images and truth are read at this share of their height and width."""
    pool_split: str = "train"
    eval_split: str = "val"


class CocoData(_FilesOnDisk):
    """`<root>/<split>.json` with COCO polygons and `<root>/images/`."""

    format: Literal["coco"]
    background: str = "background"
    """Name of a class for pixels that no polygon covers; empty: such pixels are void."""


class MasksData(_FilesOnDisk):
    """CamVid's layout: `<root>/<split>.txt` of stems, `<root>/<split>/`, `<root>/<split>annot/`; clicks are traced."""

    format: Literal["masks"]
    class_names: tuple[str, ...] = Field(min_length=2)
    """Name of mask value 0, 1, ...; every other value is void."""
    contour_epsilon_px: float = Field(1.5, ge=0)
    """Tolerance of contour simplification (Douglas-Peucker)."""
    speck_px: int = Field(16, ge=0)
    """Connected components smaller than this cost no click."""


class CityscapesData(_FilesOnDisk):
    """`leftImg8bit/<split>/<city>/` and `gtFine/<split>/<city>/`; the 19 train ids."""

    format: Literal["cityscapes"]


class SyntheticData(_Section):
    """Street scenes drawn from a seed, with exact polygons; nothing is read from disk."""

    format: Literal["synthetic"]
    seed: int = Field(0, ge=0)
    pool_images: int = Field(gt=0)
    eval_images: int = Field(gt=0)
    height: int = Field(gt=31)
    width: int = Field(gt=31)


Data = Annotated[CocoData | MasksData | CityscapesData | SyntheticData, Field(discriminator="format")]


class Model(_Section):
    """The segmentation model; the cost model has the same architecture."""

    name: Literal["fcn8s"] = "fcn8s"
    width: float = Field(0.25, gt=0, le=1)
    """Multiplier of every channel count; 1 gives the original."""
    dropout: float = Field(0.5, ge=0, lt=1)


class Training(_Section):
    """Training of both networks: Adam, one image a step, until the loss stops improving."""

    learning_rate: float = Field(1e-4, gt=0)
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = (0.99, 0.999)
    patience_epochs: int = Field(10, gt=0)
    """Stop when the epoch's loss has not improved for so many epochs."""
    max_steps: int = Field(100_000, gt=0)
    """Stop at the latest at the end of the epoch in which so many steps are reached."""


class Acquisition(_Section):
    """What is asked for, and how much of it a round."""

    seed_images: int = Field(50, gt=0)
    """n: images drawn uniformly and labelled in full before round 0."""
    images_per_round: float = Field(50, gt=0)
    """m: a round asks for regions that together hold the pixels of so many images of mean size."""
    window_px: int = Field(128, gt=0)
    information: Literal["entropy", "vote_entropy", "random"] = "vote_entropy"
    dropout_samples: int = Field(20, gt=1, le=255)
    """N_E: samples of vote entropy."""
    cost: Literal["learned", "none"] = "learned"
    fusion: Literal["g1", "g2", "g3", "information"] = "g1"
    alpha: float = Field(0.5, ge=0, le=1)
    """Weight of information in g3."""

    @model_validator(mode="after")
    def _combinations(self) -> "Acquisition":
        mistakes = []
        if self.window_px % STRIDE_PX:
            mistakes.append(f"window_px = {self.window_px}: must be a multiple of {STRIDE_PX}, the stride of the maps")
        if self.fusion != "information" and self.cost == "none":
            mistakes.append(f'fusion = "{self.fusion}" needs a cost: set cost = "learned", or fusion = "information"')
        if self.information == "random" and self.cost != "none":
            mistakes.append('information = "random" ignores cost: set cost = "none" and fusion = "information"')
        if mistakes:
            raise ValueError("; ".join(mistakes))
        return self


class Stop(_Section):
    """When the campaign ends: at the first of these. They may be changed between runs of a campaign."""

    rounds: int = Field(10, ge=0)
    """Rounds of queries; the models are trained and evaluated once more after the last."""
    clicks: float | None = Field(None, gt=0)
    """Budget: stop once the oracle's true clicks (polygon vertices) reach it."""
    target_miou: float | None = Field(None, gt=0, le=1)
    converged_rounds: int | None = Field(None, gt=0)
    """Stop when the mIoU has not risen by `min_gain` over the best before for so many rounds."""
    min_gain: float = Field(0.002, ge=0)


class Compute(_Section):
    """How the work is done. All but `precision` may be changed between runs of a campaign."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Literal["float32", "bfloat16"] = "float32"
    threads: int = Field(0, ge=0)
    """CPU threads for the networks; 0: as many as there are cores. Ledgers agree bit for bit at equal counts only."""
    shard_images: int = Field(32, gt=0)
    """Images in a shard of maps, which is one Zarr chunk and one unit of resuming."""


class CampaignSettings(_Section):
    """One campaign file (TOML)."""

    name: str = Field(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$")
    """Lower case letters, digits and dashes: it names flow runs and artifacts."""
    seed: int = Field(0, ge=0, lt=2**53)
    folder: Path | None = None
    """Where the campaign is kept; absent: `campaigns/<name>` in the working directory."""
    data: Data
    model: Model = Model()
    training: Training = Training()
    acquisition: Acquisition = Acquisition()
    stop: Stop = Stop()
    compute: Compute = Compute()

    @property
    def path(self) -> Path:
        """The campaign's folder."""
        return self.folder or Path("campaigns") / self.name


def read_settings(file: Path) -> CampaignSettings:
    """Read and check a campaign file; SettingsError lists every mistake with its key, value and what is allowed."""
    try:
        raw = tomllib.loads(file.read_text())
    except FileNotFoundError:
        raise SettingsError(
            f"{file}: no such campaign file; recipes to start from are in deployments/recipes/"
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{file}: not valid TOML: {error}; correct the file and run again") from None
    return parse_settings(raw, str(file))


def parse_settings(raw: dict[str, Any], origin: str) -> CampaignSettings:
    """Check settings already read from `origin`, a name for error messages."""
    try:
        return CampaignSettings.model_validate(raw)
    except ValidationError as error:
        lines = [_mistake(entry) for entry in error.errors()]
        count = "1 mistake" if len(lines) == 1 else f"{len(lines)} mistakes"
        raise SettingsError(f"{origin}: {count}; correct and run again\n" + "\n".join(lines)) from None


def _mistake(entry: Any) -> str:
    location = [str(part) for part in entry["loc"]]
    if len(location) > 2 and location[0] == "data":
        del location[1]  # the format's name, which pydantic adds for the union
    key, problem, value = ".".join(location), entry["msg"], entry["input"]
    if entry["type"] == "extra_forbidden":
        return f"  {key}: no such key; allowed here: {', '.join(_keys_beside(entry['loc']))}"
    if entry["type"] == "missing":
        return f"  {key}: missing; it has no default"
    shown = "" if isinstance(value, dict) else f" = {value!r}"
    return f"  {key}{shown}: {problem.removeprefix('Value error, ')}"


def _keys_beside(location: tuple[str | int, ...]) -> list[str]:
    section: Any = CampaignSettings
    if len(location) > 1:
        if location[0] == "data":
            formats = {"coco": CocoData, "masks": MasksData, "cityscapes": CityscapesData, "synthetic": SyntheticData}
            section = formats[str(location[1])]
        else:
            section = type(CampaignSettings.model_fields[str(location[0])].default)
    return sorted(section.model_fields)


def changes_between(old: CampaignSettings, new: CampaignSettings) -> list[str]:
    """Lines `key: old -> new` of the settings that decide a campaign's results and differ."""
    before, after = (_flatten(deciding_settings(settings)) for settings in (old, new))
    return [
        f"{key}: {before.get(key, '(absent)')} -> {after.get(key, '(absent)')}"
        for key in sorted(before.keys() | after.keys())
        if before.get(key) != after.get(key)
    ]


def deciding_settings(settings: CampaignSettings) -> dict[str, Any]:
    """The settings that a campaign's results depend on: not where things are, how to compute, or when to stop."""
    return settings.model_dump(
        mode="json",
        exclude={"folder": True, "stop": True, "data": {"root"}, "compute": {"device", "threads", "shard_images"}},
    )


def _flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat.update(_flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value})
    return flat
