"""Data sets: readers of images and truth, one class a format."""

from typing import Any

from cereals_core.datasets.base import Dataset
from cereals_core.datasets.cityscapes import CityscapesImages
from cereals_core.datasets.coco import CocoImages
from cereals_core.datasets.files import Split
from cereals_core.datasets.masks import MaskImages
from cereals_core.datasets.synthetic import SyntheticStreets
from cereals_core.settings import CityscapesData, CocoData, Data, MasksData, SyntheticData

_READERS: dict[type[Data], Any] = {
    CocoData: CocoImages,
    MasksData: MaskImages,
    CityscapesData: CityscapesImages,
    SyntheticData: SyntheticStreets,
}


def open_dataset(data: Data, split: Split) -> Dataset:
    """Open the pool's or the evaluation's split of a data set; DataError lists all problems of its index at once."""
    dataset: Dataset = _READERS[type(data)](data, split)
    return dataset
