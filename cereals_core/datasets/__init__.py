"""Data sets: readers of images and truth, one class a format; truth is opened by a name of its own."""

from typing import Any

from cereals_core.data_settings import CityscapesData, CocoData, Data, MasksData, SyntheticData
from cereals_core.datasets.base import Dataset, ImagesOnly, ImageSource, Part
from cereals_core.datasets.cityscapes import CityscapesImages
from cereals_core.datasets.coco import CocoImages
from cereals_core.datasets.files import Split
from cereals_core.datasets.masks import MaskImages
from cereals_core.datasets.synthetic import SyntheticStreets

_READERS: dict[type[Data], Any] = {
    CocoData: CocoImages,
    MasksData: MaskImages,
    CityscapesData: CityscapesImages,
    SyntheticData: SyntheticStreets,
}


def open_truth(data: Data, split: Split) -> Dataset:
    """Open a split with its truth: for the oracle, evaluation, checks and true costs; nothing else may.

    DataError lists all problems of the split's index at once.
    """
    dataset: Dataset = _READERS[type(data)](data, split)
    return dataset if data.most_images is None else Part(dataset, data.most_images)


def open_images(data: Data, split: Split) -> ImageSource:
    """Open the images of a split, without a way to its truth; DataError as for `open_truth`."""
    return ImagesOnly(open_truth(data, split))
