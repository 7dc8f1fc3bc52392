"""Facts of a round that never was, for its pages."""

import io
import math
from dataclasses import replace

import numpy as np
from PIL import Image

from cereals_core.curves import Point
from cereals_core.grid import Box, map_shape
from tasks.pages import figures
from tasks.pages.facts import QueryFacts, RegionView, RoundFacts, StageFacts

POINTS = (Point(0, 0.2, 100, 1000), Point(1, 0.25, 150.5, 1500))


def query(image_id: str = "street", predicted: float = 12.5) -> QueryFacts:
    return QueryFacts(image_id, Box(8, 16, 32, 32), 0.75, 20.0, predicted, 14.0, 3, 2)


def facts(**changes: object) -> RoundFacts:
    made = RoundFacts(
        campaign="demo",
        points=POINTS,
        class_iou={"road": 0.9, "absent": math.nan},
        stages=[StageFacts("train-seg", 65.0, 2_500_000, 3_000_000, "5 epochs"), StageFacts("nms", 0.04, 900, 0)],
        queries=[query(), query("park", 7.5)],
        pool_images=4,
        pool_pixels=10_000,
        images_touched=2,
        budget_clicks=400.0,
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def view(asked: QueryFacts, height: int = 60, width: int = 90, cost: bool = True) -> RegionView:
    rng = np.random.default_rng(0)
    cells = rng.random(map_shape(height, width), np.float32)
    return RegionView(asked, rng.integers(0, 256, (height, width, 3), np.uint8), cells, cells / 2 if cost else None)


def pixels(png: bytes) -> np.ndarray:
    assert png.startswith(b"\x89PNG")
    assert len(png) <= figures.MAX_PNG_BYTES
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))
