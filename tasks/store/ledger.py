"""The ledger: every region answered so far, what it cost, and what is labelled."""

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cereals_core.grid import Box
from cereals_core.labelled import is_fully_labelled, labelled_cells
from cereals_core.spending import Spending
from tasks.store import tables
from tasks.store.pool import PoolImage
from tasks.store.products import Product

Row = dict[str, Any]
"""A row of a table that names a region of an image."""


def box_of(row: Row) -> Box:
    """Return the region that a row names."""
    return Box(row["y"], row["x"], row["height"], row["width"])


def by_image(rows: Iterable[Row]) -> dict[str, list[Row]]:
    """Group rows by their image, in the order in which those come first."""
    grouped: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        grouped[row["image_id"]].append(row)
    return dict(grouped)


class Ledger:
    """The ledger's table, and what is labelled according to it."""

    def __init__(self, product: Product) -> None:
        self.table: pa.Table = tables.LEDGER.read(product)
        rows = self.table.select(["image_id", "y", "x", "height", "width"]).to_pylist()
        self.boxes = {image_id: [box_of(row) for row in some] for image_id, some in by_image(rows).items()}

    @property
    def clicks(self) -> float:
        """Clicks spent: polygon vertices (c_p)."""
        return float(np.sum(self.table["vertices"].to_numpy()))

    @property
    def pixels(self) -> int:
        """Pixels labelled."""
        return sum(box.pixels for boxes in self.boxes.values() for box in boxes)

    @property
    def spending(self) -> Spending:
        """What is known of predicted clicks: those of past rounds beside the true ones."""
        rows = self.table.filter(pc.field("predicted_clicks").is_valid())
        predicted, true = (float(np.sum(rows[name].to_numpy())) for name in ("predicted_clicks", "vertices"))
        return Spending(self.clicks / max(self.pixels, 1), predicted, true)

    def is_full(self, image: PoolImage) -> bool:
        """Tell whether the image is labelled in full, and so has left the pool."""
        boxes = self.boxes.get(image.image_id)
        return boxes is not None and is_fully_labelled(boxes, image.height, image.width)

    def labelled_cells(self, image: PoolImage) -> np.ndarray:
        """Mark the cells labelled so far: bool (ceil(H/8), ceil(W/8))."""
        return labelled_cells(self.boxes.get(image.image_id, ()), image.height, image.width)
