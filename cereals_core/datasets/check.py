"""Reading a whole split once, so that a broken file is found before anything is spent on it."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from cereals_core.datasets.base import Dataset
from cereals_core.errors import DataError


@dataclass(frozen=True)
class ImageInfo:
    """One image of a split: its id and its size in pixels, as read."""

    image_id: str
    height: int
    width: int


def check(dataset: Dataset, on_image: Callable[[], None] | None, threads: int) -> tuple[list[ImageInfo], list[str]]:
    """Read every image and its truth; return the sizes of the images that can be read, and all problems, a line each.

    `threads` images are held at a time. `on_image` is called after each, by the caller's thread and in the order of the
    ids. An image that cannot be read has no ImageInfo; one whose truth cannot be read has both a problem and its size.
    """
    infos: list[ImageInfo] = []
    problems: list[str] = []
    with ThreadPoolExecutor(threads) as pool:
        for info, found in pool.map(lambda image_id: _check_image(dataset, image_id), dataset.image_ids):
            infos.extend([info] if info else [])
            problems.extend(found)
            if on_image:
                on_image()
    return infos, problems


def _check_image(dataset: Dataset, image_id: str) -> tuple[ImageInfo | None, list[str]]:
    image_shape, problem = _shape_or_problem(lambda: dataset.image(image_id).shape)
    truth_shape, truth_problem = _shape_or_problem(lambda: dataset.truth(image_id).labels.shape)
    problems = [text for text in (problem, truth_problem) if text]
    if image_shape and truth_shape and image_shape[:2] != truth_shape:
        problems.append(
            f"{image_id}: image of {_size(image_shape)} but truth of {_size(truth_shape)} px, expected equal sizes; "
            "replace the one that is wrong"
        )
    return ImageInfo(image_id, *image_shape[:2]) if image_shape else None, problems


def _shape_or_problem(shape: Callable[[], tuple[int, ...]]) -> tuple[tuple[int, ...] | None, str | None]:
    try:
        return shape(), None
    except DataError as error:
        return None, str(error)


def _size(shape: tuple[int, ...]) -> str:
    return f"{shape[0]} x {shape[1]}"
