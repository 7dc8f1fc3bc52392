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


def scale(values: list[np.float32]) -> list[np.float32]:
    """Scale a whole pool's candidates linearly to [0, 1]; a constant pool to 0."""
    low, high = min(values), max(values)
    return [(value - low) / (high - low) if high > low else np.float32(0) for value in values]


def fuse(name: str, information: np.float32, cost: np.float32, alpha: float, offset: float = 0.05) -> np.float32:
    """Fused score of one region."""
    if name == "g1":
        return information / (1 + cost)
    if name == "g2":
        return (1 - cost) * information
    if name == "g3":
        return alpha * information + (1 - alpha) * (1 - cost)
    if name == "per_click":
        return information / (cost + np.float32(offset))
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


def best_within(
    scores: np.ndarray, y: np.ndarray, x: np.ndarray, image_rank: np.ndarray, spend: np.ndarray, budget: float
) -> list[int]:
    """Indices of the best proposals, one after the other, until the next is too much for the budget; at least one."""
    taken: list[int] = []
    for index in top_k(scores, y, x, image_rank, len(scores)):
        if taken and sum(float(spend[other]) for other in taken) + float(spend[index]) > budget:
            break
        taken.append(index)
    return taken


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


def shares(pixel: np.ndarray) -> list[float]:
    """Softmax of one pixel's logits (C,), in Python's floats."""
    weights = [math.exp(value - max(pixel.tolist())) for value in pixel.tolist()]
    return [weight / math.fsum(weights) for weight in weights]


def least_confidence(logits: np.ndarray) -> np.ndarray:
    """1 - the largest share, (B, h, w), of logits (B, C, h, w)."""
    return np.apply_along_axis(lambda pixel: 1 - max(shares(pixel)), 1, logits)


def margin(logits: np.ndarray) -> np.ndarray:
    """1 - (the largest share - the second largest), (B, h, w), of logits (B, C, h, w)."""

    def of_pixel(pixel: np.ndarray) -> float:
        second, first = sorted([0.0, *shares(pixel)])[-2:]
        return 1 - (first - second)

    return np.apply_along_axis(of_pixel, 1, logits)


def bald(samples: np.ndarray) -> np.ndarray:
    """Mutual information of class and sample in nats, (B, h, w), of all samples' logits (N, B, C, h, w) at once."""
    mean = np.mean([np.apply_along_axis(shares, 1, logits) for logits in samples], axis=0)
    return entropy(np.log(mean, out=np.full_like(mean, -np.inf), where=mean > 0)) - np.mean(
        [entropy(logits) for logits in samples], axis=0
    )


def touching(labelled: np.ndarray) -> list[set[Position]]:
    """Labelled cells in groups that touch, corners included, in the order of their first cells."""
    remaining = [(int(y), int(x)) for y, x in np.argwhere(labelled)]
    groups = []
    while remaining:
        group, border = set(), [remaining[0]]
        while border:
            y, x = border.pop()
            if (y, x) in remaining:
                remaining.remove((y, x))
                group.add((y, x))
                border += [(y + i, x + j) for i in (-1, 0, 1) for j in (-1, 0, 1)]
        groups.append(group)
    return groups


def crop_of(cells: set[Position], size: Position, context: int, grid: int) -> tuple[int, int, int, int]:
    """Box (y, x, height, width) around cells, grown pixel by pixel to hold their context and to meet grid or edge."""
    starts, lengths = [], []
    for axis in range(2):
        start = wanted = 8 * min(cell[axis] for cell in cells)
        while start > 0 and (start > wanted - context or start % grid):
            start -= 1
        end = wanted = min(8 * max(cell[axis] for cell in cells) + 8, size[axis])
        while end < size[axis] and (end < wanted + context or end % grid):
            end += 1
        starts.append(start)
        lengths.append(end - start)
    return starts[0], starts[1], lengths[0], lengths[1]


def crops(
    labelled: np.ndarray, height: int, width: int, context: int, grid: int
) -> list[tuple[tuple[int, int, int, int], set[Position]]]:
    """Boxes and the cells that count in each: every group is added, joined first with all that it is no dearer with."""

    def pixels(cells: set[Position]) -> int:
        _, _, rows, columns = crop_of(cells, (height, width), context, grid)
        return rows * columns

    kept: list[set[Position]] = []
    for group in touching(labelled):
        added = group
        while True:
            savings = [pixels(other) + pixels(added) - pixels(other | added) for other in kept]
            if not savings or max(savings) < 0:
                break
            added = added | kept.pop(savings.index(max(savings)))
        kept.append(added)
    if not kept or sum(map(pixels, kept)) >= height * width:
        return [((0, 0, height, width), {cell for cells in kept for cell in cells})]
    return sorted((crop_of(cells, (height, width), context, grid), cells) for cells in kept)


def edge_map(grey: np.ndarray) -> np.ndarray:
    """Length of Sobel's gradient of grey values (H, W), pixel by pixel; what lies outside is mirrored at the border."""
    height, width = grey.shape

    def at(y: int, x: int) -> float:
        y, x = (-v if v < 0 else 2 * n - 2 - v if v >= n else v for v, n in ((y, height), (x, width)))
        return float(grey[y, x])

    result = np.zeros((height, width))
    for y, x in np.ndindex(height, width):
        down = sum(weight * (at(y + 1, x + i) - at(y - 1, x + i)) for i, weight in ((-1, 1), (0, 2), (1, 1)))
        right = sum(weight * (at(y + i, x + 1) - at(y + i, x - 1)) for i, weight in ((-1, 1), (0, 2), (1, 1)))
        result[y, x] = math.sqrt(down**2 + right**2)
    return result


def calibration(predicted: list[float], true: list[float], most_bins: int) -> list[tuple[float, float]]:
    """Means of predicted and true by bins of rank, a region's rank being its mean place among equal predictions."""
    bins: dict[int, list[int]] = {}
    for index, value in enumerate(predicted):
        place = sum(other < value for other in predicted) + sum(other == value for other in predicted) / 2
        bins.setdefault(math.floor(place * min(most_bins, len(predicted)) / len(predicted)), []).append(index)
    return [
        tuple(math.fsum(values[index] for index in members) / len(members) for values in (predicted, true))  # type: ignore[misc]
        for _, members in sorted(bins.items())
    ]


def region_vertices(clicks: np.ndarray, shape: Position, box: tuple[int, int, int, int]) -> float:
    """Clicks whose pixel, moved into the image, lies in the box (y, x, height, width), one by one."""
    total = 0.0
    for y, x, weight in clicks.tolist():
        row, column = (min(max(math.floor(v), 0), side - 1) for v, side in zip((y, x), shape, strict=True))
        total += weight * (box[0] <= row < box[0] + box[2] and box[1] <= column < box[1] + box[3])
    return total


def naive_components(labels: list[list[int]]) -> int:
    height, width = len(labels), len(labels[0])
    seen: set[tuple[int, int]] = set()
    count = 0
    for start in ((y, x) for y in range(height) for x in range(width)):
        count += start not in seen
        stack = [start]
        while stack:
            y, x = stack.pop()
            if (y, x) in seen:
                continue
            seen.add((y, x))
            for v, u in ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)):
                if 0 <= v < height and 0 <= u < width and labels[v][u] == labels[y][x]:
                    stack.append((v, u))
    return count


def naive_crossings(labels: list[list[int]]) -> int:
    height, width = len(labels), len(labels[0])
    if height == 1 or width == 1:
        line = [value for row in labels for value in row]
        return sum(line[i] != line[i + 1] for i in range(len(line) - 1))
    y, x, changes = 0, 0, 0
    for dy, dx, steps in ((0, 1, width - 1), (1, 0, height - 1), (0, -1, width - 1), (-1, 0, height - 1)):
        for _ in range(steps):
            changes += labels[y][x] != labels[y + dy][x + dx]
            y, x = y + dy, x + dx
    return changes
