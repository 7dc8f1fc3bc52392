"""The evaluation split's truth, read once in a process: every round compares with it, and tracing masks takes time."""

from functools import lru_cache
from threading import Lock

from cereals_core.data_settings import Data
from cereals_core.datasets import open_truth
from cereals_core.datasets.base import Dataset
from cereals_core.truth import Truth
from tasks.running.memory import available_bytes

TRUTH_SHARE = 0.05
"""Share of the memory that the process may hold for truth that is kept."""


def truth_kept_at_most_bytes() -> float:
    """Tell the bytes of labels and clicks that a process keeps, as memory is now."""
    return TRUTH_SHARE * available_bytes()


class KeptTruth:
    """A split's truth, each image's read once, as far as memory holds it."""

    def __init__(self, dataset: Dataset) -> None:
        self.image_ids, self.image, self._dataset = dataset.image_ids, dataset.image, dataset
        self._kept: dict[str, Truth] = {}
        self._kept_bytes = 0
        self._keeping = Lock()

    def truth(self, image_id: str) -> Truth:
        """Return labels and clicks as the data set gives them; not to be changed."""
        found = self._kept.get(image_id)
        if found is None:
            found = self._dataset.truth(image_id)
            size = found.labels.nbytes + found.clicks.nbytes
            with self._keeping:
                if image_id not in self._kept and self._kept_bytes + size <= truth_kept_at_most_bytes():
                    self._kept[image_id] = found
                    self._kept_bytes += size
        return found


@lru_cache(maxsize=1)
def evaluation_truth(data: Data) -> KeptTruth:
    """Open the evaluation split with its truth."""
    return KeptTruth(open_truth(data, "eval"))
