"""The slow and obvious twins of the fast paths: plain loops, one value at a time."""

import math
from collections.abc import Iterable

import numpy as np

Position = tuple[int, int]


def entropy(logits: np.ndarray) -> np.ndarray:
    """Entropy in nats, (B, h, w), of logits (B, C, h, w), in Python's floats."""
    images, _, rows, columns = logits.shape
    result = np.zeros((images, rows, columns))
    for at in np.ndindex(result.shape):
        pixel = logits[at[0], :, at[1], at[2]].astype(np.float64)
        weights = [math.exp(value - pixel.max()) for value in pixel]
        shares = [weight / math.fsum(weights) for weight in weights]
        result[at] = -math.fsum(share * math.log(share) for share in shares if share)
    return result


def votes(samples: Iterable[np.ndarray]) -> np.ndarray:
    """Votes (B, C, h, w) of several logits (B, C, h, w); the smaller class wins a tie."""
    samples = list(samples)
    counts = np.zeros(samples[0].shape, dtype=np.uint8)
    for logits in samples:
        for image, row, column in np.ndindex(logits.shape[0], *logits.shape[2:]):
            pixel = logits[image, :, row, column].tolist()
            counts[image, pixel.index(max(pixel)), row, column] += 1
    return counts


def vote_entropy(counts: np.ndarray, samples: int) -> np.ndarray:
    """Entropy of votes in nats, (B, h, w), of counts (B, C, h, w)."""
    images, _, rows, columns = counts.shape
    result = np.zeros((images, rows, columns))
    for at in np.ndindex(result.shape):
        shares = [int(count) / samples for count in counts[at[0], :, at[1], at[2]]]
        result[at] = -math.fsum(share * math.log(share) for share in shares if share)
    return result


def positions(shape: tuple[int, int], window: int) -> list[Position]:
    """Every position of a window wholly inside a map, in row-major order."""
    return [(y, x) for y in range(shape[0] - window + 1) for x in range(shape[1] - window + 1)]


def window_sums(cells: np.ndarray, window: int) -> dict[Position, float]:
    """Sum of each window of one map, cell by cell."""
    return {
        (y, x): sum(float(cells[y + i, x + j]) for i in range(window) for j in range(window))
        for y, x in positions(cells.shape, window)
    }


def candidates(labelled: np.ndarray, window: int) -> dict[Position, bool]:
    """Whether each window is free of labelled cells."""
    return {
        (y, x): not any(labelled[y + i, x + j] for i in range(window) for j in range(window))
        for y, x in positions(labelled.shape, window)
    }


def scale(values: list[float]) -> list[float]:
    """Scale a whole pool's candidates linearly to [0, 1]; a constant pool to 0."""
    low, high = min(values), max(values)
    return [(value - low) / (high - low) if high > low else 0.0 for value in values]


def fuse(name: str, information: float, cost: float, alpha: float) -> float:
    """Fused score of one region in Python's floats."""
    if name == "g1":
        return information / (1 + cost)
    if name == "g2":
        return (1 - cost) * information
    if name == "g3":
        return alpha * information + (1 - alpha) * (1 - cost)
    return information


def suppress(scores: np.ndarray, window: int) -> list[Position]:
    """Greedy suppression: list all candidates, sort them, take each that overlaps none taken."""
    listed = [(-float(scores[at]), at) for at in np.ndindex(scores.shape) if scores[at] > -np.inf]
    taken: list[Position] = []
    for _, (y, x) in sorted(listed):
        if all(abs(y - other_y) >= window or abs(x - other_x) >= window for other_y, other_x in taken):
            taken.append((y, x))
    return taken


def top_k(scores: np.ndarray, y: np.ndarray, x: np.ndarray, image_rank: np.ndarray, k: int) -> list[int]:
    """Indices of the k best proposals, by sorting them all."""
    listed = range(len(scores))
    return sorted(listed, key=lambda i: (-float(scores[i]), int(y[i]), int(x[i]), int(image_rank[i])))[:k]


def labels_at_stride(labels: np.ndarray) -> np.ndarray:
    """The label at pixel (4, 4) of each 8 x 8 block, or the nearest to it that the image has."""
    height, width = labels.shape
    return np.array(
        [
            [labels[min(top + 4, height - 1), min(left + 4, width - 1)] for left in range(0, width, 8)]
            for top in range(0, height, 8)
        ]
    )


def click_map(clicks: np.ndarray, height: int, width: int) -> np.ndarray:
    """Clicks in each 8 x 8 block, one vertex at a time; a pixel holds at most 10."""
    pixels = np.zeros((height, width))
    for y, x, weight in clicks.tolist():
        pixels[min(max(math.floor(y), 0), height - 1), min(max(math.floor(x), 0), width - 1)] += weight
    pixels = pixels.clip(0, 10)
    return np.array(
        [[pixels[top : top + 8, left : left + 8].sum() for left in range(0, width, 8)] for top in range(0, height, 8)]
    )


def iou(truth: np.ndarray, prediction: np.ndarray, classes: int) -> list[float]:
    """Intersection over union of each class, by sets of pixels; NaN where the union is empty."""
    result = []
    for label in range(classes):
        true = {at for at in np.ndindex(truth.shape) if truth[at] == label}
        found = {at for at in np.ndindex(truth.shape) if prediction[at] == label and truth[at] != 255}
        result.append(len(true & found) / len(true | found) if true | found else math.nan)
    return result
