"""The slow and obvious twins of what is computed on learning curves."""

import itertools
import math
import operator


def first_reach(points: list[tuple[int, float]], goal: float, steps: int) -> float | None:
    """First place at which the lines through (spend, mIoU) are at the goal, looking `steps` times between points."""
    if points and points[0][1] >= goal:
        return points[0][0]
    for (x0, y0), (x1, y1) in itertools.pairwise(points):
        for part in (step / steps for step in range(1, steps + 1)):
            if y0 + part * (y1 - y0) >= goal:
                return x0 + part * (x1 - x0)
    return None


def height(points: list[tuple[int, float]], at: float) -> float:
    """mIoU of the line through (spend, mIoU) at one spend, from the points on either side."""
    (x0, y0), (x1, y1) = next(pair for pair in itertools.pairwise(points) if pair[0][0] <= at <= pair[1][0])
    return y0 + (at - x0) / (x1 - x0) * (y1 - y0)


def mean_height(points: list[tuple[int, float]], low: int, high: int, slices: int) -> float:
    """Mean mIoU from `low` to `high`: heights in the middle of so many slices of each unit of spend."""
    heights = [height(points, low + (place + 0.5) / slices) for place in range((high - low) * slices)]
    return math.fsum(heights) / len(heights)


def sign_flip_p(differences: list[int]) -> float:
    """Share of all ways to sign the differences whose sum is as far from 0."""
    seen = abs(sum(differences))
    flips = list(itertools.product((-1, 1), repeat=len(differences)))
    return sum(abs(sum(map(operator.mul, flip, differences))) >= seen for flip in flips) / len(flips)
