"""What a campaign file may say of its data set: a section for each format."""

from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator


class Section(BaseModel):
    """A part of a settings file: unknown keys are mistakes, and so are values of another type, inf and NaN."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    @field_validator("*")
    @classmethod
    def _is_text(cls, value: object) -> object:
        if isinstance(value, str | Path) and "\0" in str(value):
            raise ValueError("holds a NUL character, which no path can; remove it")
        return value


class _FilesOnDisk(Section):
    root: Path = Field(strict=False)
    """Folder of the data set, relative to the working directory; it may move between runs."""
    scale: float = Field(1.0, gt=0, le=1)
    """Images and truth are read at this share of their height and width."""
    pool_split: str = "train"
    eval_split: str = "val"
    most_images: int | None = Field(None, gt=0)
    """Read so many images of each split at most, drawn at random: to try a campaign out."""

    def few(self, images: int) -> Self:
        """Return a small data set like this one, which does without the pool: images for evaluation stand for it."""
        return self.model_copy(update={"pool_split": self.eval_split, "most_images": images})

    @property
    def dial(self) -> str:
        """The key, with its value, that makes images smaller."""
        return f"scale = {self.scale:g}"


class CocoData(_FilesOnDisk):
    """`<root>/<split>.json` with COCO polygons and `<root>/images/`."""

    format: Literal["coco"]
    background: str = "background"
    """Name of a class for pixels that no polygon covers; empty: such pixels are void."""


class MasksData(_FilesOnDisk):
    """CamVid's layout: `<root>/<split>.txt` of stems, `<root>/<split>/`, `<root>/<split>annot/`; clicks are traced."""

    format: Literal["masks"]
    class_names: tuple[str, ...] = Field(min_length=2, strict=False)
    """Name of mask value 0, 1, ...; every other value is void."""
    contour_epsilon_px: float = Field(1.5, ge=0)
    """Tolerance of contour simplification (Douglas-Peucker)."""
    speck_px: int = Field(16, ge=0)
    """Connected components smaller than this cost no click."""
    clicks_per_vertex: float = Field(1.0, gt=0, le=1000)
    """Clicks that a traced vertex stands for; `cereals data clicks --traced` measures it where polygons are known."""


class CityscapesData(_FilesOnDisk):
    """`leftImg8bit/<split>/<city>/` and `gtFine/<split>/<city>/`; the 19 train ids."""

    format: Literal["cityscapes"]


class SyntheticData(Section):
    """Street scenes drawn from a seed, with exact polygons; nothing is read from disk."""

    format: Literal["synthetic"]
    seed: int = Field(0, ge=0, lt=2**53)
    pool_images: int = Field(gt=0, le=10**7)
    eval_images: int = Field(gt=0, le=10**7)
    height: int = Field(gt=31, le=2**14)
    width: int = Field(gt=31, le=2**14)
    root: ClassVar[None] = None
    most_images: ClassVar[None] = None

    def few(self, images: int) -> Self:
        """Return a small data set like this one, of other scenes."""
        return self.model_copy(update={"seed": self.seed + 1, "pool_images": images, "eval_images": images})

    @property
    def dial(self) -> str:
        """The key, with its value, that makes images smaller."""
        return f"height = {self.height}"


Data = Annotated[CocoData | MasksData | CityscapesData | SyntheticData, Field(discriminator="format")]
