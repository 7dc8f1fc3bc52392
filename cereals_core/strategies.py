"""Every strategy by name: what is scored, by which information and cost, and how both are fused."""

from typing import Literal, NamedTuple

Unit = Literal["region", "image"]
Cost = Literal["learned", "true", "none"]


class Measure(NamedTuple):
    """A measure of information: whether it takes many passes with dropout, or one without, and its unit ("" for 1)."""

    is_sampled: bool
    unit: str


MEASURES = {
    "entropy": Measure(False, "nats"),
    "vote_entropy": Measure(True, "nats"),
    "least_confidence": Measure(False, ""),
    "margin": Measure(False, ""),
    "bald": Measure(True, "nats"),
}
"""Measures of information, by the names of their functions in `cereals_core.information`."""
DRAWN = ("random", "random_by_class")
"""What stands in a measure's place where regions are drawn."""


class Strategy(NamedTuple):
    """Values of the four keys of `[acquisition]` that make a strategy, what it does in a line, and where it is from."""

    unit: Unit
    information: str
    cost: Cost
    fusion: str
    definition: str
    source: str


_PAPER = "Mackowiak et al. 2018"

STRATEGIES: dict[str, Strategy] = {
    "cereals": Strategy(
        "region", "vote_entropy", "learned", "g1", "vote entropy I and learned cost C as I / (1 + C)", _PAPER
    ),
    "cereals-g2": Strategy(
        "region", "vote_entropy", "learned", "g2", "vote entropy I and learned cost C as (1 - C) I", _PAPER
    ),
    "cereals-g3": Strategy(
        "region",
        "vote_entropy",
        "learned",
        "g3",
        "vote entropy I and learned cost C as alpha I + (1 - alpha)(1 - C)",
        _PAPER,
    ),
    "cereals-entropy": Strategy(
        "region", "entropy", "learned", "g1", "entropy I and learned cost C as I / (1 + C)", _PAPER
    ),
    "cereals-per-click": Strategy(
        "region",
        "vote_entropy",
        "learned",
        "per_click",
        "vote entropy I and learned cost C as I / (C + offset)",
        "Settles and others 2008",
    ),
    "cereals-true-cost": Strategy(
        "region", "vote_entropy", "true", "g1", "true clicks as cost: an upper bound, not a strategy", _PAPER
    ),
    "vote-entropy-regions": Strategy("region", "vote_entropy", "none", "none", "regions by vote entropy alone", _PAPER),
    "entropy-regions": Strategy("region", "entropy", "none", "none", "regions by entropy alone", _PAPER),
    "least-confidence-regions": Strategy(
        "region", "least_confidence", "none", "none", "regions by 1 - max P", "Lewis and Gale 1994"
    ),
    "margin-regions": Strategy(
        "region",
        "margin",
        "none",
        "none",
        "regions by 1 - (P of the best class - P of the second)",
        "Scheffer et al. 2001",
    ),
    "bald-regions": Strategy(
        "region",
        "bald",
        "none",
        "none",
        "regions by mutual information of class and dropout sample",
        "Houlsby et al. 2011",
    ),
    "random-regions": Strategy("region", "random", "none", "none", "regions drawn uniformly", _PAPER),
    "balanced-random-regions": Strategy(
        "region",
        "random_by_class",
        "none",
        "none",
        "regions drawn so that each predicted class has as many",
        "after nnActive, 2025",
    ),
    "vote-entropy-images": Strategy(
        "image", "vote_entropy", "none", "none", "whole images by mean vote entropy", _PAPER
    ),
    "entropy-images": Strategy("image", "entropy", "none", "none", "whole images by mean entropy", _PAPER),
    "random-images": Strategy("image", "random", "none", "none", "whole images drawn uniformly", _PAPER),
}
"""Each can be had by its parts as well, and so can every other combination; `acquisition.strategy` names one."""
