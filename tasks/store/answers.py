"""The oracle's answers as they are kept: labels as PNG, clicks as coordinates."""

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import cv2
import numpy as np
import pyarrow as pa

from cereals_core.grid import Box
from cereals_core.oracle import Answer
from tasks.store import tables
from tasks.store.layout import ANSWERS, Campaign
from tasks.store.ledger import box_of

StoredAnswer = tuple[Box, np.ndarray, np.ndarray]
"""Region, its labels uint8 (height, width), its clicks float32 (V, 3), as `labelled.compose` takes them."""


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
