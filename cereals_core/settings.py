"""What a campaign file may say: every key, its default, its range, and what goes together."""

import os
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Discriminator, Field, Tag, model_validator

from cereals_core.data_settings import Data, Section
from cereals_core.fusion import FUSIONS
from cereals_core.grid import STRIDE_PX
from cereals_core.location import Location, open_location
from cereals_core.networks import NETWORKS
from cereals_core.strategies import MEASURES, STRATEGIES, Cost, Unit

ADDRESS = r"(tcp|tls|ucx|ws|wss)://\S+"
"""Addresses of Dask schedulers."""


class Model(Section):
    """The segmentation model. The cost model is FCN8s; beside an FCN8s it starts from the segmentation's weights."""

    name: Literal[tuple(NETWORKS)] = "fcn8s"  # type: ignore[valid-type]  # pydantic reads the names at run time
    """FCN8s, or a model of torchvision."""
    width: float = Field(0.25, gt=0, le=1)
    """Multiplier of every channel count of FCN8s, as cost model too; 1 gives the original."""
    dropout: float = Field(0.5, ge=0, lt=1)
    """Probability that a dropout mask is 0, in every model that has dropout."""
    weights: Path | None = Field(None, strict=False)
    """File of pretrained weights (a state dict): VGG16 for FCN8s at width 1, else the torchvision model or its
    backbone. It is copied into the campaign when that starts."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Number format of the networks' arithmetic."""

    @model_validator(mode="after")
    def _vgg16_is_wide(self) -> "Model":
        if self.weights is not None and self.name == "fcn8s" and self.width != 1:
            raise ValueError(f"weights of VGG16 fit FCN8s of width = 1 only, not {self.width}; set width = 1.0")
        return self


class Training(Section):
    """Training of both networks: Adam, a few images a step, until the loss stops improving."""

    learning_rate: float = Field(1e-4, gt=0)
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = Field(
        (0.99, 0.999), strict=False
    )
    patience_epochs: int = Field(10, gt=0)
    """Stop when the epoch's loss has not improved for so many epochs."""
    batch_images: int = Field(1, gt=0)
    """Images a step; 1 is the paper's. They weigh alike, and those of one size go through the network together."""
    max_steps: int = Field(100_000, gt=0)
    """Stop at the latest at the end of the epoch in which so many steps are reached."""
    method: Literal["masking", "cropping"] = "masking"
    """What a step computes of a partly labelled image: all of it, unlabelled cells masked in the loss; or the labelled
    regions with the network's receptive field around them, for the same gradient."""


CountOrAll = Annotated[
    Annotated[int, Field(gt=0), Tag("count")] | Annotated[Literal["all"], Tag("word")],
    Discriminator(lambda value: "word" if isinstance(value, str) else "count"),
]


def _parts_of(strategy: Any, clicks_per_round: Any) -> dict[str, str]:
    """Return the keys that a strategy's name stands for; none for what is no such name."""
    if not isinstance(strategy, str) or strategy not in STRATEGIES:
        return {}
    parts = {key: getattr(STRATEGIES[strategy], key) for key in ("unit", "information", "cost", "fusion")}
    return parts | ({"cost": "learned"} if clicks_per_round is not None and parts["cost"] == "none" else {})


class Acquisition(Section):
    """What is asked for, and how much of it a round."""

    strategy: Literal[tuple(STRATEGIES)] | None = None  # type: ignore[valid-type]  # pydantic reads the names at run time
    """A name for `unit`, `information`, `cost` and `fusion` together; absent: they are given one by one."""
    seed_images: CountOrAll = 50
    """n: images drawn uniformly and labelled in full before round 0; "all": the whole pool."""
    images_per_round: float = Field(50, gt=0)
    """m: a round asks for regions that together hold the pixels of so many images of mean size."""
    clicks_per_round: float | None = Field(None, gt=0)
    """A budget in predicted clicks in place of `images_per_round`; a strategy without cost learns one for it alone."""
    unit: Unit = "region"
    """What a query is: a window, or a whole image."""
    window_px: int = Field(128, gt=0)
    information: Literal[(*MEASURES, "random")] = "vote_entropy"  # type: ignore[valid-type]
    dropout_samples: int = Field(20, gt=1, le=255)
    """N_E: samples of vote entropy and BALD."""
    cost: Cost = "learned"
    """"true" takes the clicks from the pool's truth: an upper bound for studies, never to be had in practice."""
    fusion: Literal[tuple(FUSIONS)] = "g1"  # type: ignore[valid-type]
    alpha: float = Field(0.5, ge=0, le=1)
    """Weight of information in g3."""
    batch_images: int = Field(1, gt=0)
    """Images that go through a network together when maps are made, if they are of one size: for GPUs and small images;
    on CPUs it does not pay. It changes the last bits of maps."""

    @model_validator(mode="before")
    @classmethod
    def _by_name(cls, raw: Any) -> Any:
        """Fill in what the strategy's name means; keys given beside it are compared once all are known to be valid."""
        return _parts_of(raw.get("strategy"), raw.get("clicks_per_round")) | raw if isinstance(raw, dict) else raw

    @model_validator(mode="after")
    def _combinations(self) -> "Acquisition":
        mistakes = [
            f'strategy = "{self.strategy}" means {key} = "{value}", not "{getattr(self, key)}"; remove one of the two'
            for key, value in _parts_of(self.strategy, self.clicks_per_round).items()
            if getattr(self, key) != value
        ]
        if self.window_px % STRIDE_PX:
            mistakes.append(f"window_px = {self.window_px}: must be a multiple of {STRIDE_PX}, the stride of the maps")
        if self.fusion != "none" and self.cost == "none":
            mistakes.append(f'fusion = "{self.fusion}" needs a cost: set cost = "learned", or fusion = "none"')
        if self.information == "random" and self.fusion != "none":
            mistakes.append(f'information = "random" is not fused: set fusion = "none", not "{self.fusion}"')
        if self.clicks_per_round is not None and self.cost == "none":
            mistakes.append(f'clicks_per_round = {self.clicks_per_round} needs a cost: set cost = "learned"')
        if mistakes:
            raise ValueError("; ".join(mistakes))
        return self

    @property
    def needs_dropout(self) -> bool:
        """Whether the information is measured over dropout samples."""
        return self.information in MEASURES and MEASURES[self.information].is_sampled


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
    name: str = Field(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$", max_length=200)
    """Lower case letters, digits and dashes: it names flow runs and artifacts."""
    folder: Location | None = None
    """Where it is kept: a folder, or a prefix of an object store (`s3://bucket/prefix`); absent: `<home>/<name>`."""
    data: Data
    model: Model = Model()
    training: Training = Training()
    acquisition: Acquisition = Acquisition()
    stop: Stop = Stop()
    compute: Compute = Compute()

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
        mistakes, family = [], NETWORKS[self.model.name]
        if self.acquisition.needs_dropout and not (family.has_dropout and self.model.dropout > 0):
            mistakes.append(
                f'acquisition.information = "{self.acquisition.information}" needs dropout, which model.name = '
                f'"{self.model.name}" with model.dropout = {self.model.dropout} lacks; take "entropy" or another model'
            )
        if self.training.method == "cropping" and not family.is_local:
            mistakes.append(
                f'training.method = "cropping" needs a finite receptive field and no batch normalisation, which '
                f'model.name = "{self.model.name}" lacks; take "masking" or "fcn8s"'
            )
        if mistakes:
            raise ValueError("; ".join(mistakes))
        return self


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
        exclude={"folder": True, "stop": True, "data": {"root"}, "acquisition": {"strategy"}, "compute": True},
    )


def _flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat.update(_flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value})
    return flat
