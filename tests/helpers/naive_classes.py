"""The slow and obvious twins of what is done by predicted class."""

import numpy as np


def weighted(information: np.ndarray, classes: np.ndarray, cells: list[int], strength: float) -> np.ndarray:
    """Information of each cell over (1 + c p)^2, p being the share of its class."""
    result = np.zeros(classes.shape)
    for at in np.ndindex(classes.shape):
        share = cells[int(classes[at])] / sum(cells)
        result[at] = float(information[at]) / (1 + strength * share) ** 2
    return result


def best_within_classes(rows: list[dict[str, float]], budget: float, share: float) -> list[int]:
    """Indices by class first, each as far as its part of the budget goes; then the best of the others; best first."""
    classes, taken = {row["class"] for row in rows}, list[int]()
    for each in classes:
        spent = 0.0
        for index in _best_first(rows, [i for i, row in enumerate(rows) if row["class"] == each]):
            spent += rows[index]["spend"]
            if spent > share * budget / len(classes):
                break
            taken.append(index)
    for index in _best_first(rows, [i for i in range(len(rows)) if i not in taken]):
        if taken and sum(rows[i]["spend"] for i in taken) + rows[index]["spend"] > budget:
            break
        taken.append(index)
    return _best_first(rows, taken)


def _best_first(rows: list[dict[str, float]], indices: list[int]) -> list[int]:
    return sorted(indices, key=lambda i: (-rows[i]["score"], *(rows[i][name] for name in ("y", "x", "image_rank"))))
