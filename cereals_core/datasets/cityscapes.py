"""Cityscapes' layout: `leftImg8bit/<split>/<city>/` and `gtFine/<split>/<city>/`, with the 19 classes of training."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from cereals_core.data_settings import CityscapesData, SyntheticData
from cereals_core.datasets.files import (
    Split,
    read_image,
    read_json,
    read_mask,
    refuse,
    repeated_ids,
    scaled_truth,
    split_name,
)
from cereals_core.datasets.polygons import Polygon, Ring, vertex_clicks
from cereals_core.datasets.synthetic import CLASS_NAMES, SyntheticStreets
from cereals_core.errors import DataError
from cereals_core.grid import VOID
from cereals_core.shapes import UInt8
from cereals_core.truth import Truth

LABEL_IDS = {
    "road": 7,
    "sidewalk": 8,
    "building": 11,
    "wall": 12,
    "fence": 13,
    "pole": 17,
    "traffic light": 19,
    "traffic sign": 20,
    "vegetation": 21,
    "terrain": 22,
    "sky": 23,
    "person": 24,
    "rider": 25,
    "car": 26,
    "truck": 27,
    "bus": 28,
    "train": 31,
    "motorcycle": 32,
    "bicycle": 33,
}
"""Value in `*_gtFine_labelIds.png` of each class, in the order of the train ids 0 to 18; other values are void."""
_VOID_ID, _VOID_NAME = 0, "unlabeled"
_IMAGE_SUFFIX = "_leftImg8bit.png"
_LABELS_SUFFIX = "_gtFine_labelIds.png"
_POLYGONS_SUFFIX = "_gtFine_polygons.json"

_TRAIN_IDS = np.full(256, VOID, np.uint8)
_TRAIN_IDS[list(LABEL_IDS.values())] = np.arange(len(LABEL_IDS))


class CityscapesImages:
    """One split of Cityscapes; an image's id is its file name without `_leftImg8bit.png`.

    Labels come from the label ids, clicks from every polygon of the JSON file, those of void classes included.
    """

    def __init__(self, data: CityscapesData, split: Split) -> None:
        name = split_name(data, split)
        self._scale = data.scale
        self._truth_folder = data.root / "gtFine" / name
        folder = data.root / "leftImg8bit" / name
        files = sorted(folder.glob(f"*/*{_IMAGE_SUFFIX}"))
        self.class_names, self.index_files = tuple(LABEL_IDS), list[Path]()
        self._files = {file.name.removesuffix(_IMAGE_SUFFIX): file for file in files}
        self.image_ids = sorted(self._files)
        problems = repeated_ids(folder, (file.name.removesuffix(_IMAGE_SUFFIX) for file in files))
        if not files:
            problems.append(f"{folder}: no <city>/*{_IMAGE_SUFFIX} found; correct data.root or the split's name")
        refuse(problems)

    def image(self, image_id: str) -> UInt8[np.ndarray, "h w 3"]:
        """Read one RGB image."""
        return read_image(self._files[image_id], self._scale)

    def truth(self, image_id: str) -> Truth:
        """Read one image's label ids as train ids, and the vertices of its polygons."""
        _, labels, polygons = self.files(image_id)
        clicks = vertex_clicks(_rings(polygons))
        return scaled_truth(Truth(_TRAIN_IDS[read_mask(labels)], clicks), self._scale)

    def files(self, image_id: str) -> list[Path]:
        """List the image's picture, label ids and polygons."""
        picture = self._files[image_id]
        folder = self._truth_folder / picture.parent.name
        return [picture, *(folder / f"{image_id}{suffix}" for suffix in (_LABELS_SUFFIX, _POLYGONS_SUFFIX))]


def _rings(file: Path) -> list[Ring]:
    try:
        polygons = [entry["polygon"] for entry in read_json(file)["objects"]]
    except (KeyError, TypeError):
        raise DataError(f'{file}: no "objects" with a "polygon" each; replace it by an intact copy') from None
    return [_ring(file, number, polygon) for number, polygon in enumerate(polygons)]


def _ring(file: Path, number: int, polygon: object) -> Ring:
    try:
        ring = np.array(polygon, np.float64)
    except (TypeError, ValueError):
        ring = np.empty(0)
    if ring.ndim != 2 or ring.shape[1] != 2 or len(ring) < 3 or not np.isfinite(ring).all():
        raise DataError(f"{file}: object {number} is no ring of at least 3 points [x, y]; correct or remove it")
    return ring[:, ::-1]


def write_cityscapes_layout(data: SyntheticData, folder: Path, on_image: Callable[[], None] | None = None) -> None:
    """Write pool and evaluation images as splits `train` and `val` in Cityscapes' layout, which CityscapesData reads.

    Pictures, label ids and polygons; `on_image` is called after each image. DataError if `folder` holds something.
    """
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise DataError(f"{folder}: {'not empty' if folder.is_dir() else 'a file'}; remove it or name another folder")
    splits: dict[Split, str] = {"pool": "train", "eval": "val"}
    for split, name in splits.items():
        streets = SyntheticStreets(data, split)
        for image_id in streets.image_ids:
            labels, polygons = streets.truth(image_id).labels, streets.polygons(image_id)
            frame = Frame(streets.image(image_id), labels, polygons, CLASS_NAMES)
            write_frame(frame, folder, name, "streets", image_id)
            if on_image:
                on_image()


@dataclass(frozen=True)
class Frame:
    """An RGB image with truth: labels and polygons of classes named as in `LABEL_IDS`, or VOID."""

    image: UInt8[np.ndarray, "h w 3"]
    labels: UInt8[np.ndarray, "h w"]
    polygons: Sequence[Polygon]
    class_names: tuple[str, ...]


def write_frame(frame: Frame, root: Path, split: str, city: str, image_id: str) -> None:
    """Write one frame's picture, label ids and polygons under `root` as `CityscapesImages` reads them; void is id 0."""
    ids, names = np.full(256, _VOID_ID, np.uint8), dict(enumerate(frame.class_names))
    ids[: len(names)] = [LABEL_IDS[name] for name in frame.class_names]
    objects = [
        {"label": names.get(polygon.label, _VOID_NAME), "polygon": polygon.ring[:, ::-1].tolist()}
        for polygon in frame.polygons
    ]
    height, width = frame.labels.shape
    pictures, truths = (root / part / split / city for part in ("leftImg8bit", "gtFine"))
    pictures.mkdir(parents=True, exist_ok=True)
    truths.mkdir(parents=True, exist_ok=True)
    _write_picture(pictures / f"{image_id}{_IMAGE_SUFFIX}", cv2.cvtColor(frame.image, cv2.COLOR_RGB2BGR))
    _write_picture(truths / f"{image_id}{_LABELS_SUFFIX}", ids[frame.labels])
    content = json.dumps({"imgHeight": height, "imgWidth": width, "objects": objects})
    (truths / f"{image_id}{_POLYGONS_SUFFIX}").write_text(content)


def _write_picture(file: Path, picture: UInt8[np.ndarray, "h w *channels"]) -> None:
    if not cv2.imwrite(str(file), picture):
        raise DataError(f"{file}: could not be written; check the folder's rights and the free space")
