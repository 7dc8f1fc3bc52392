"""The simulated oracle: asked for a region, it answers with its labels, its clicks and what they cost."""

from dataclasses import dataclass

import numpy as np

from cereals_core.clicks import RegionCost, clicks_inside, region_cost
from cereals_core.errors import CerealsError
from cereals_core.grid import Box
from cereals_core.shapes import Float, UInt8
from cereals_core.truth import Truth


class OutsideError(CerealsError, IndexError):
    """A region asked for that is not wholly inside its image."""


@dataclass(frozen=True)
class Answer:
    """Labels, clicks and cost of one region, as the oracle returns them.

    `labels`: of the pixels of the box. `clicks`: rows (y, x, weight), the clicks inside the region, in
    pixels of the image and not of the box. `cost`: the true cost, recorded at this moment.
    """

    image_id: str
    box: Box
    labels: UInt8[np.ndarray, "h w"]
    clicks: Float[np.ndarray, "clicks 3"]
    cost: RegionCost


def answer(image_id: str, truth: Truth, box: Box) -> Answer:
    """Label the region `box` of one image; OutsideError unless it is wholly inside and not empty."""
    height, width = truth.labels.shape
    inside = min(box.y, box.x) >= 0 and box.y + box.height <= height and box.x + box.width <= width
    if not inside or min(box.height, box.width) < 1:
        raise OutsideError(
            f"{image_id}: {box} is not a region of the image of {height} x {width} px; ask for a box wholly inside"
        )
    clicks = truth.clicks[clicks_inside(truth.clicks, box, (height, width))]
    return Answer(image_id, box, truth.labels[box.slices].copy(), clicks, region_cost(truth, box))
