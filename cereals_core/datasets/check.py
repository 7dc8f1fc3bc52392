"""Reading a whole split once, so that a broken file is found before anything is spent on it."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from cereals_core.datasets.base import Dataset
from cereals_core.datasets.stamps import Stamp, stamp_of
from cereals_core.errors import DataError
from cereals_core.grid import VOID

Read = TypeVar("Read")


@dataclass(frozen=True)
class ImageInfo:
    """One image of a split as read: its id, its size in pixels, what of it is labelled, and stamps of its files."""

    image_id: str
    height: int
    width: int
    labelled_px: int = 0
    clicks: float = 0.0
    stamps: tuple[Stamp, ...] = ()


def check(
    dataset: Dataset, on_image: Callable[[], None] | None, threads: int, root: Path | None = None
) -> tuple[list[ImageInfo], list[str]]:
    """Read every image and its truth; return the images that can be read, and all problems, a line each.

    `threads` images are held at a time. `on_image` is called after each, by the caller's thread and in the order of the
    ids. An image that cannot be read has no ImageInfo; one whose truth cannot be read has both a problem and its size.
    Files are stamped if their data set's `root` is given.
    """
    infos: list[ImageInfo] = []
    problems: list[str] = []
    with ThreadPoolExecutor(threads) as pool:
        for info, found in pool.map(lambda image_id: _check_image(dataset, image_id, root), dataset.image_ids):
            infos.extend([info] if info else [])
            problems.extend(found)
            if on_image:
                on_image()
    return infos, problems


def _check_image(dataset: Dataset, image_id: str, root: Path | None) -> tuple[ImageInfo | None, list[str]]:
    image, problem = _read_or_problem(lambda: dataset.image(image_id))
    truth, truth_problem = _read_or_problem(lambda: dataset.truth(image_id))
    problems = [text for text in (problem, truth_problem) if text]
    if image is None:
        return None, problems
    height, width = image.shape[:2]
    if truth is None:
        return ImageInfo(image_id, height, width), problems
    if truth.labels.shape != (height, width):
        problems.append(
            f"{image_id}: image of {height} x {width} but truth of {_size(truth.labels.shape)} px, expected equal "
            "sizes; replace the one that is wrong"
        )
    labelled_px, clicks = int(np.count_nonzero(truth.labels != VOID)), float(truth.clicks[:, 2].sum(dtype=np.float64))
    stamps = tuple(stamp_of(file, root) for file in dataset.files(image_id)) if root is not None else ()
    return ImageInfo(image_id, height, width, labelled_px, clicks, stamps), problems


def nothing_to_learn(infos: Sequence[ImageInfo]) -> list[str]:
    """Return the problem of a split in which nothing is labelled, or nothing costs a click."""
    if not any(info.labelled_px for info in infos):
        return ["no image has a labelled pixel: all is void; correct the classes, or the truth"]
    if not any(info.clicks for info in infos):
        return ["no image has a click, a vertex of a polygon: its labels cost nothing; add the annotations"]
    return []


def _read_or_problem(read: Callable[[], Read]) -> tuple[Read | None, str | None]:
    try:
        return read(), None
    except DataError as error:
        return None, str(error)


def _size(shape: tuple[int, ...]) -> str:
    return f"{shape[0]} x {shape[1]}"
