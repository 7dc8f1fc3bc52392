"""What every data set offers: images for all, truth for the oracle and for evaluation only."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from cereals_core.seeding import rng
from cereals_core.truth import Truth


class ImageSource(Protocol):
    """The images of one split: all that training and scoring may see of it."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes; a label is an index into them."""
        ...

    @property
    def image_ids(self) -> Sequence[str]:
        """Identifiers of the split's images, sorted."""
        ...

    def image(self, image_id: str) -> np.ndarray:
        """Read one image: uint8 (H, W, 3), RGB. DataError names the file."""
        ...


class Dataset(ImageSource, Protocol):
    """One split with its truth, which is handed to the oracle and to evaluation only."""

    def truth(self, image_id: str) -> Truth:
        """Read one image's labels and clicks. DataError names the file."""
        ...

    def files(self, image_id: str) -> Sequence[Path]:
        """List the files of one image: its own, then those of its truth; none where nothing is read from disk."""
        ...

    @property
    def index_files(self) -> Sequence[Path]:
        """Files that say which images there are, or hold the truth of all."""
        ...


class ImagesOnly:
    """The images of a data set, cut off from its truth."""

    def __init__(self, dataset: Dataset) -> None:
        self.class_names, self.image_ids, self.image = dataset.class_names, dataset.image_ids, dataset.image


class Part:
    """Some images of a data set, so many at most, drawn uniformly and always the same."""

    def __init__(self, dataset: Dataset, most: int) -> None:
        self.class_names, self.image, self.truth = dataset.class_names, dataset.image, dataset.truth
        self.files, self.index_files = dataset.files, dataset.index_files
        order = rng(0, "part").permutation(len(dataset.image_ids))
        self.image_ids = sorted(dataset.image_ids[index] for index in order[:most])
