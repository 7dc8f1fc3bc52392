from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from small_campaign import small_settings

from cereals_core.datasets import open_truth
from cereals_core.truth import Truth
from tasks.running import truths
from tasks.running.truths import TRUTH_SHARE, KeptTruth

SIDE, CLICKS = 8, 3
BYTES = SIDE * SIDE + 12 * CLICKS


class Counted:
    """A split of made truth that counts how often each image's was read."""

    image_ids = ("a", "b")

    def __init__(self) -> None:
        self.read: Counter[str] = Counter()

    def image(self, image_id: str) -> np.ndarray:
        return np.zeros((SIDE, SIDE, 3), np.uint8)

    def truth(self, image_id: str) -> Truth:
        self.read[image_id] += 1
        return Truth(np.zeros((SIDE, SIDE), np.uint8), np.zeros((CLICKS, 3), np.float32))


@pytest.mark.parametrize(("room", "reads"), [(0, 6), (1, 4), (2, 2)])
def test_truth_is_read_once_as_far_as_memory_holds_it(monkeypatch: pytest.MonkeyPatch, room: int, reads: int) -> None:
    monkeypatch.setattr(truths, "available_bytes", lambda: round(room * BYTES / TRUTH_SHARE))
    counted = Counted()
    kept = KeptTruth(counted)  # type: ignore[arg-type]  # as much of a data set as it takes
    for _ in range(3):
        for image_id in kept.image_ids:
            assert kept.truth(image_id).labels.shape == (SIDE, SIDE)
    assert counted.read.total() == reads


def test_it_is_the_evaluation_splits_own(tmp_path: Path) -> None:
    data = small_settings(tmp_path).data
    truths.evaluation_truth.cache_clear()
    kept, source = truths.evaluation_truth(data), open_truth(data, "eval")
    assert list(kept.image_ids) == list(source.image_ids)
    for image_id in source.image_ids:
        for _ in range(2):
            np.testing.assert_array_equal(kept.truth(image_id).labels, source.truth(image_id).labels)
            np.testing.assert_array_equal(kept.truth(image_id).clicks, source.truth(image_id).clicks)
