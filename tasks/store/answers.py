"""The oracle's answers as they are kept: labels as PNG, clicks as coordinates; written and read a few at a time."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from cereals_core.grid import Box
from cereals_core.oracle import Answer
from tasks.store import tables
from tasks.store.layout import Campaign
from tasks.store.ledger import box_of

HELD_BYTES = 8 << 20
"""Encoded answers that are held before they are written."""


@contextmanager
def writing_answers(folder: Path) -> Iterator[Callable[[Answer], None]]:
    """Write answers one by one: yields the function that takes each of them."""
    held: list[dict[str, Any]] = []
    held_bytes = 0
    with tables.ANSWERS.writing(folder) as add:

        def take(answer: Answer) -> None:
            nonlocal held_bytes
            held.append(_row(answer))
            held_bytes += len(held[-1]["labels_png"]) + answer.clicks.nbytes
            if held_bytes > HELD_BYTES:
                add(held)
                held.clear()
                held_bytes = 0

        yield take
        add(held)


def _row(answer: Answer) -> dict[str, Any]:
    encoded, png = cv2.imencode(".png", answer.labels)
    assert encoded
    return {
        "image_id": answer.image_id,
        **answer.box._asdict(),
        "labels_png": png.tobytes(),
        "clicks": answer.clicks.ravel(),
    }


def read_answers(campaign: Campaign, rounds: int) -> Iterator[tuple[str, Box, np.ndarray, np.ndarray]]:
    """Read the answers of the seed set and of the first `rounds` rounds, one after the other.

    Yields image id, region, its labels uint8 (height, width) and its clicks float32 (V, 3), as `LabelledImage.add`
    takes them.
    """
    folders = [campaign.stage("seed-set", None), *(campaign.stage("oracle-query", number) for number in range(rounds))]
    for folder in folders:
        for part in tables.ANSWERS.parts(folder):
            for row in part.to_pylist():
                png = np.frombuffer(row["labels_png"], np.uint8)
                labels = np.asarray(cv2.imdecode(png, cv2.IMREAD_UNCHANGED))
                yield row["image_id"], box_of(row), labels, np.asarray(row["clicks"], np.float32).reshape(-1, 3)
