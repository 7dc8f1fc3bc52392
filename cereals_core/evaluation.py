"""How good the models are: mean intersection over union, and agreement of predicted with true cost."""

from dataclasses import dataclass

import numpy as np
import scipy  # scipy.stats is loaded where it is first used, which takes half a second

from cereals_core.errors import DataError
from cereals_core.grid import VOID
from cereals_core.shapes import Float64, Int64, Integer, Real, UInt8


def confusion(
    truth: UInt8[np.ndarray, "h w"], prediction: Integer[np.ndarray, "h w"], classes: int
) -> Int64[np.ndarray, "classes classes"]:
    """Count the pixels of each true class (row) predicted as each class (column).

    Pixels whose truth is VOID are left out,
    whatever was predicted there. Matrices of several images add up. Raises DataError for any other class outside
    0 ... classes - 1.
    """
    known = truth != VOID
    pair = truth[known].astype(np.int64), prediction[known].astype(np.int64)
    for name, values in zip(("truth", "prediction"), pair, strict=True):
        if values.size and not 0 <= values.min() <= values.max() < classes:
            raise DataError(
                f"{name} holds class {values.min()} to {values.max()}; expected 0 to {classes - 1}, or {VOID} for void "
                "truth; check the class names of the data set"
            )
    return np.bincount(pair[0] * classes + pair[1], minlength=classes**2).reshape(classes, classes)


def iou(confusion: Integer[np.ndarray, "classes classes"]) -> Float64[np.ndarray, "classes"]:
    """Compute intersection over union of each class: TP / (TP + FP + FN), in [0, 1].

    `confusion` has the truth in rows. NaN for a class that neither truth nor prediction holds.
    """
    hits = np.diagonal(confusion).astype(np.float64)
    union = confusion.sum(axis=0) + confusion.sum(axis=1) - hits
    return np.divide(hits, union, out=np.full(hits.shape, np.nan), where=union > 0)


def mean_iou(confusion: Integer[np.ndarray, "classes classes"]) -> float:
    """Average `iou` over the classes that occur in the truth or in the prediction.

    Pixels of void truth are left out. A class that was predicted though the truth never holds it counts with 0. NaN if
    no class occurs.
    """
    present = iou(confusion)
    present = present[~np.isnan(present)]
    return float(present.mean()) if present.size else float("nan")


@dataclass(frozen=True)
class CostAgreement:
    """Agreement of regions' predicted costs with true ones; NaN where a figure is not defined."""

    regions: int
    predicted: float
    """Sum of the predicted costs, in clicks."""
    true: float
    """Sum of the true costs, in clicks."""
    pearson: float
    """Linear correlation in [-1, 1]; NaN below 2 regions, or if either side is constant."""
    spearman: float
    """Correlation of ranks in [-1, 1], ties taking their mean rank; NaN as for `pearson`."""
    mean_absolute_error: float
    """In clicks a region; NaN without a region."""

    @property
    def sum_ratio(self) -> float:
        """Predicted over true clicks; NaN if the true costs sum to 0."""
        return self.predicted / self.true if self.true else float("nan")

    @property
    def bias(self) -> float:
        """Mean of predicted - true, in clicks a region; NaN without a region."""
        return (self.predicted - self.true) / self.regions if self.regions else float("nan")


def cost_agreement(predicted: Real[np.ndarray, "regions"], true: Real[np.ndarray, "regions"]) -> CostAgreement:
    """Compare predicted and true cost, both in clicks, where a prediction is finite; few regions are no error."""
    known = np.isfinite(predicted)
    predicted, true = predicted[known].astype(np.float64), true[known].astype(np.float64)
    return CostAgreement(
        regions=len(true),
        predicted=float(predicted.sum()),
        true=float(true.sum()),
        pearson=_correlation(predicted, true),
        spearman=_correlation(scipy.stats.rankdata(predicted), scipy.stats.rankdata(true)),
        mean_absolute_error=float(np.abs(predicted - true).mean()) if true.size else float("nan"),
    )


def calibration(
    predicted: Real[np.ndarray, "regions"], true: Real[np.ndarray, "regions"], most_bins: int
) -> Float64[np.ndarray, "bins 2"]:
    """Average predicted and true cost of regions in bins of their prediction, all in clicks, ascending.

    Regions without a finite prediction are left out. Bins hold equally many
    regions as far as that goes: equal predictions stay together, so that a constant makes one bin. Our choice.
    """
    known = np.isfinite(predicted)
    pairs = np.column_stack([predicted[known], true[known]]).astype(np.float64)
    bins = min(most_bins, len(pairs))
    number = ((scipy.stats.rankdata(pairs[:, 0]) - 0.5) * bins / max(len(pairs), 1)).astype(np.intp)
    return np.array([pairs[number == each].mean(axis=0) for each in np.unique(number)]).reshape(-1, 2)


def _correlation(a: Float64[np.ndarray, "n"], b: Float64[np.ndarray, "n"]) -> float:
    if a.size < 2 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return float("nan")
    return float(np.corrcoef(a, b)[0, 1])
