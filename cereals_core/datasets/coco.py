"""COCO polygons: one JSON file a split, painted in the order in which it holds an image's annotations."""

from collections import defaultdict
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np

from cereals_core.data_settings import CocoData
from cereals_core.datasets.files import Split, read_image, read_json, refuse, repeated_ids, scaled_truth, split_name
from cereals_core.datasets.polygons import Polygon, Ring, polygon_truth
from cereals_core.errors import DataError
from cereals_core.grid import VOID
from cereals_core.shapes import UInt8
from cereals_core.truth import Truth


class CocoImages:
    """One split of a COCO polygon data set; an image's id is its file's stem.

    Classes are the categories in the order of their ids, then the background class if the settings name one. An
    annotation's rings are parts of one object. Rings are open, as COCO has them: each vertex is a click.
    DataError lists every problem of the JSON file at once.
    """

    def __init__(self, data: CocoData, split: Split) -> None:
        self._file = data.root / f"{split_name(data, split)}.json"
        self._folder = data.root / "images"
        self._scale = data.scale
        index = _sections(self._file)
        categories = sorted(index["categories"], key=lambda category: category["id"])
        names = [str(category["name"]) for category in categories]
        self.class_names = (*names, data.background) if data.background else tuple(names)
        self._background = len(names) if data.background else VOID
        self._entries = {Path(entry["file_name"]).stem: entry for entry in index["images"]}
        self.image_ids = sorted(self._entries)
        label_of = {category["id"]: label for label, category in enumerate(categories)}
        self._polygons, problems = _polygons(self._file, index, label_of)
        refuse([*self._index_problems(index), *problems])

    def image(self, image_id: str) -> UInt8[np.ndarray, "h w 3"]:
        """Read one RGB image."""
        return read_image(self._folder / self._entries[image_id]["file_name"], self._scale)

    def truth(self, image_id: str) -> Truth:
        """Paint one image's polygons; their vertices are its clicks."""
        entry = self._entries[image_id]
        shape = int(entry["height"]), int(entry["width"])
        return scaled_truth(polygon_truth(self._polygons[entry["id"]], shape, self._background), self._scale)

    def files(self, image_id: str) -> list[Path]:
        """List the image's file."""
        return [self._folder / self._entries[image_id]["file_name"]]

    @property
    def index_files(self) -> list[Path]:
        """The JSON file, which holds all truth."""
        return [self._file]

    def _index_problems(self, index: dict[str, Any]) -> list[str]:
        problems = repeated_ids(self._file, (Path(entry["file_name"]).stem for entry in index["images"]))
        if len(index["images"]) != len(self._polygons):
            problems.append(f"{self._file}: two images have one number (id), expected each its own; renumber them")
        if not self.image_ids:
            problems.append(f"{self._file}: lists no image, expected at least one; add images or choose another split")
        if len(set(self.class_names)) != len(self.class_names):
            problems.append(f"{self._file}: a class name occurs twice; rename the category, or set data.background")
        if not 2 <= len(self.class_names) <= VOID:
            problems.append(
                f"{self._file}: {len(self.class_names)} classes, expected 2 to {VOID}; add or merge categories"
            )
        return problems


_KEYS = {
    "categories": ("id", "name"),
    "images": ("id", "file_name", "height", "width"),
    "annotations": ("id", "image_id", "category_id", "segmentation"),
}


def _sections(file: Path) -> dict[str, Any]:
    index = read_json(file)
    for section, keys in _KEYS.items():
        entries = index.get(section) if isinstance(index, dict) else None
        if not isinstance(entries, list):
            raise DataError(f'{file}: no list "{section}"; expected COCO\'s {", ".join(_KEYS)}; export it as COCO JSON')
        for position, entry in enumerate(entries):
            missing = [key for key in keys if not isinstance(entry, dict) or key not in entry]
            if missing:
                raise DataError(f"{file}: {section}[{position}] lacks {', '.join(missing)}; add what is missing")
    return dict(index)


def _polygons(
    file: Path, index: dict[str, Any], label_of: dict[int, int]
) -> tuple[dict[int, list[Polygon]], list[str]]:
    polygons: dict[int, list[Polygon]] = {entry["id"]: [] for entry in index["images"]}
    problems: dict[int, list[str]] = defaultdict(list)
    for annotation in index["annotations"]:
        found = problems[annotation["id"]]
        if annotation["image_id"] not in polygons:
            found.append(f"of unknown image {annotation['image_id']}; add the image or remove the annotation")
        if annotation["category_id"] not in label_of:
            found.append(f"of unknown category {annotation['category_id']}; add the category or correct the number")
        rings = annotation["segmentation"] if isinstance(annotation["segmentation"], list) else []
        if not rings:
            found.append("without polygon (run-length masks hold no clicks); export polygons or remove it")
        found.extend(problem for ring in rings if (problem := _ring_problem(ring)))
        if not found:
            label = label_of[annotation["category_id"]]
            polygons[annotation["image_id"]].extend(Polygon(label, _ring(ring)) for ring in rings)
    return polygons, [f"{file}: annotation {number} {text}" for number, texts in problems.items() for text in texts]


def _ring_problem(ring: Any) -> str | None:
    if not isinstance(ring, list) or not all(isinstance(number, (int, float)) and isfinite(number) for number in ring):
        return "has a ring that is no list of finite numbers; expected x1, y1, x2, y2, ...; export polygons again"
    if len(ring) % 2 or len(ring) < 6:
        return f"has a ring of {len(ring)} numbers, expected an even count of at least 6; correct or remove it"
    return None


def _ring(numbers: list[float]) -> Ring:
    return np.array(numbers, np.float64).reshape(-1, 2)[:, ::-1]
