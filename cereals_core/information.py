"""Information of a pixel, from the logits of one pass or of many dropout samples; and how maps are rounded.

Axes are images (b), classes, rows and columns of the map (h, w). Logits have any floating dtype and any scale, and are
finite or -inf (a class that is ruled out), at least one finite per pixel. Formulas run where the logits are. Natural
logarithm, so entropies are in nats.

Dropout samples come one by one from an iterable, 1 to 255 of them, and no more than two are held at a time.
"""

from collections.abc import Callable, Iterable
from functools import reduce

import numpy as np
import torch
from torch import Tensor

from cereals_core import strategies
from cereals_core.shapes import Float, Float16, Float32, Float64, UInt8

Logits = Float[Tensor, "b classes h w"]
Map = Float32[Tensor, "b h w"]


def entropy(logits: Logits) -> Map:
    """Compute the entropy of the class probabilities: H = - sum_c P_c log P_c, with P = softmax(logits).

    0 log 0 = 0. In [0, log C] up to rounding. The logarithm is taken by log_softmax in float32, so that neither half
    precision nor probabilities of 0 hurt. Source: the paper, after Shannon (1948).
    """
    log_p = torch.log_softmax(logits.float(), dim=1).clamp(min=torch.finfo(torch.float32).min)
    return (log_p.exp() * -log_p).sum(dim=1)


def least_confidence(logits: Logits) -> Map:
    """Compute what the best class lacks to certainty: 1 - max_c P_c, with P = softmax(logits) in float32.

    In [0, 1 - 1/C] up to rounding: 0 where one class is certain, 1 - 1/C where all are equal. Source: Lewis and Gale
    (1994).
    """
    return 1 - torch.softmax(logits.float(), dim=1).amax(dim=1)


def margin(logits: Logits) -> Map:
    """Compute how close the two best classes are: 1 - (P_1st - P_2nd), with P = softmax(logits) in float32.

    In [0, 1]: 0 where one class is certain, 1 where the two best are equal. With a single class P_2nd is 0. It is
    turned round (our choice; the source's margin is P_1st - P_2nd), so that more is more informative. Source: Scheffer,
    Decomain and Wrobel (2001).
    """
    p = torch.softmax(logits.float(), dim=1)
    first = p.max(dim=1, keepdim=True)
    second = p.scatter(1, first.indices, 0).amax(dim=1)
    return 1 - (first.values[:, 0] - second)


def vote(logits: Logits) -> UInt8[Tensor, "b classes h w"]:
    """Mark each pixel's most probable class in one dropout sample: 1 there, else 0.

    Equal logits vote for the smaller class.
    """
    best = logits.max(dim=1, keepdim=True).indices  # the first of equal ones, as argmax, but up to 4 times faster
    return torch.zeros_like(logits, dtype=torch.uint8).scatter_(1, best, 1)


def vote_entropy(samples: Iterable[Logits]) -> Map:
    """Compute the entropy of the votes of N dropout samples: V = - sum_c (n_c / N) log(n_c / N).

    0 log 0 = 0. n_c is the number of samples that vote for class c. In [0, log min(C, N)] up to rounding: 0 where all
    agree. The terms come from a table of N + 1 values and are summed in float64, class by class, so every device that
    counts the same votes returns the same bits. Source: the paper, after Dagan and Engelson (1995).
    """
    counts = reduce(torch.add, map(vote, samples))
    number = int(counts[0, :, 0, 0].sum())
    share = np.arange(1, number + 1) / number
    terms = torch.from_numpy(np.concatenate([[0.0], -share * np.log(share)])).to(counts.device)
    total = torch.zeros_like(counts[:, 0], dtype=torch.float64)
    for votes in counts.unbind(dim=1):
        total += terms[votes.long()]
    return total.float()


def bald(samples: Iterable[Logits]) -> Map:
    """Compute the mutual information of class and dropout sample: H(mean_s P_s) - mean_s H(P_s).

    P_s = softmax(sample s's logits). In [0, log min(C, N)] for N samples: 0 where all are equal, be they ever so
    uncertain; log N where each is certain of another class. Both terms are summed in float64, for their difference is
    small; what rounding leaves below 0 is 0. Source: Houlsby et al. (2011); over dropout samples, Gal, Islam and
    Ghahramani (2017).
    """
    p_sum = entropy_sum = torch.zeros((), dtype=torch.float64)
    number = 0
    for logits in samples:
        p = torch.softmax(logits.double(), dim=1)
        p_sum, entropy_sum, number = p_sum + p, entropy_sum + _entropy(p), number + 1
    return (_entropy(p_sum / number) - entropy_sum / number).clamp(min=0).float()


def _entropy(p: Float64[Tensor, "b classes h w"]) -> Float64[Tensor, "b h w"]:
    return torch.special.entr(p).sum(dim=1)


Measure = Callable[[Logits], Map]
SampledMeasure = Callable[[Iterable[Logits]], Map]

_OF_ONE_PASS, _SAMPLED = (
    [name for name, each in strategies.MEASURES.items() if each.is_sampled is kind] for kind in (False, True)
)
MEASURES: dict[str, Measure] = {name: globals()[name] for name in _OF_ONE_PASS}
"""Measures of one pass without dropout, by their names in settings."""
SAMPLED_MEASURES: dict[str, SampledMeasure] = {name: globals()[name] for name in _SAMPLED}
"""Measures of many passes with dropout, by their names in settings."""


def quantise(values: Float[np.ndarray, "*shape"]) -> Float16[np.ndarray, "*shape"]:
    """Round a map to half precision, as it is kept; ties to the even one.

    A value moves by 2^-11 of itself at most, and by 2^-25 at most where it is below 2^-14; from 65,520 on it becomes
    infinite, which is refused when maps are written. Why: half the bytes, at an error below the networks' (our choice).
    And every such number is a multiple of 2^-24, so that sums of up to 2^19 cells below 2^10 are integers below 2^53
    times 2^-24, which float64 holds exactly: sums of a map's cells have no rounding, and their order does not matter.
    """
    with np.errstate(over="ignore"):
        return values.astype(np.float16)
