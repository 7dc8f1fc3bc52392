"""The labelled state of a campaign: the regions that its ledger lists, and the answers about them."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

import cv2
import numpy as np
import pyarrow as pa

from cereals_core.grid import Box
from cereals_core.labelled import is_fully_labelled, labelled_cells
from cereals_core.oracle import Answer
from tasks import tables
from tasks.layout import ANSWERS, LEDGER, Campaign
from tasks.maps import PoolImage
from tasks.products import Product

StoredAnswer = tuple[Box, np.ndarray, np.ndarray]
"""Region, its labels uint8 (height, width), its clicks float32 (V, 3), as `labelled.compose` takes them."""


def box_of(row: Mapping[str, Any]) -> Box:
    """The region that a row of any table names."""
    return Box(row["y"], row["x"], row["height"], row["width"])


class Ledger:
    """The ledger's table, and what is labelled according to it."""

    def __init__(self, product: Product) -> None:
        self.table: pa.Table = tables.read_table(product / LEDGER, tables.LEDGER)
        self.boxes: dict[str, list[Box]] = defaultdict(list)
        for row in self.table.select(["image_id", "y", "x", "height", "width"]).to_pylist():
            self.boxes[row["image_id"]].append(box_of(row))

    @property
    def clicks(self) -> float:
        """Clicks spent: polygon vertices (c_p)."""
        return float(np.sum(self.table["vertices"].to_numpy()))

    @property
    def pixels(self) -> int:
        """Pixels labelled."""
        return sum(box.pixels for boxes in self.boxes.values() for box in boxes)

    def is_full(self, image: PoolImage) -> bool:
        """Whether the image is labelled in full, and so has left the pool."""
        boxes = self.boxes.get(image.image_id)
        return boxes is not None and is_fully_labelled(boxes, image.height, image.width)

    def labelled_cells(self, image: PoolImage) -> np.ndarray:
        """Cells labelled so far: bool (ceil(H/8), ceil(W/8))."""
        return labelled_cells(self.boxes.get(image.image_id, ()), image.height, image.width)


def answer_row(answer: Answer) -> dict[str, Any]:
    """An answer as a row of the answers table."""
    encoded, png = cv2.imencode(".png", answer.labels)
    assert encoded
    return {
        "image_id": answer.image_id,
        **answer.box._asdict(),
        "labels_png": png.tobytes(),
        "clicks": answer.clicks.ravel(),
    }


def read_answers(campaign: Campaign, rounds: int) -> dict[str, list[StoredAnswer]]:
    """Answers of the seed set and of the first `rounds` rounds, by image."""
    folders = [campaign.stage("seed-set", None), *(campaign.stage("oracle-query", number) for number in range(rounds))]
    answers: dict[str, list[StoredAnswer]] = defaultdict(list)
    for folder in folders:
        for row in _rows(tables.iterate_table(folder / ANSWERS, tables.ANSWERS)):
            png = np.frombuffer(row["labels_png"], np.uint8)
            labels = np.asarray(cv2.imdecode(png, cv2.IMREAD_UNCHANGED))
            clicks = np.asarray(row["clicks"], np.float32).reshape(-1, 3)
            answers[row["image_id"]].append((box_of(row), labels, clicks))
    return answers


def _rows(batches: Iterable[pa.Table]) -> Iterable[dict[str, Any]]:
    for batch in batches:
        yield from batch.to_pylist()
