"""Fewer channels of features: their principal components, fitted on some images, without labels."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from cereals_core.shapes import Float32


class Projection(NamedTuple):
    """A linear map of channels: what is subtracted of each, and the weights of the components that are kept."""

    mean: Float32[np.ndarray, "channels"]
    components: Float32[np.ndarray, "channels kept"]


def fit(cells: Iterable[Float32[np.ndarray, "_ channels"]], kept: int) -> Projection:
    """Fit the `kept` principal components of cells' channels, those of most variance first, in float64.

    Of the two signs of a component the one is taken whose largest weight is positive.
    """
    count, total, squares = 0, np.zeros(1), np.zeros((1, 1))
    for each in cells:
        values = each.astype(np.float64)
        count, total, squares = count + len(values), total + values.sum(0), squares + values.T @ values
    mean = total / count
    _, vectors = np.linalg.eigh(squares / count - np.outer(mean, mean))
    components = vectors[:, ::-1][:, :kept]
    largest = components[np.abs(components).argmax(0), np.arange(components.shape[1])]
    return Projection(mean.astype(np.float32), (components * np.sign(largest)).astype(np.float32))


def shared_out(channels: Sequence[int], kept: int) -> tuple[int, ...]:
    """Share out `kept` channels over strides by how many each has, at least one to each and none more than it has."""
    wanted = min(max(kept, len(channels)), sum(channels))
    exact = [wanted * count / sum(channels) for count in channels]
    given = [max(int(share), 1) for share in exact]
    while (missing := wanted - sum(given)) != 0:
        step = 1 if missing > 0 else -1
        can = [1 <= each + step <= count for each, count in zip(given, channels, strict=True)]
        index = max(range(len(channels)), key=lambda each: (can[each], step * (exact[each] - given[each])))
        given[index] += step
    return tuple(given)
