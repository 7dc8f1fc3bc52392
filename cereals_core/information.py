"""Information of a pixel, from the logits of one pass or from the votes of many; and how maps are rounded.

Logits and votes are torch tensors (B, C, h, w): images, classes, rows and columns of the map. Formulas run where the
logits are. Natural logarithm, so information is in nats.
"""

import numpy as np
import torch
from torch import Tensor

QUANTUM = 2.0**-20
"""Maps are kept as multiples of this."""


def entropy(logits: Tensor) -> Tensor:
    """Entropy of the class probabilities: H = - sum_c P_c log P_c, with P = softmax(logits) and 0 log 0 = 0.

    `logits` is (B, C, h, w) of any floating dtype and any scale, finite or -inf (a class that is ruled out), at least
    one finite per pixel. Returns float32 (B, h, w) in [0, log C] up to rounding. The logarithm is taken by log_softmax
    in float32, so that neither half precision nor probabilities of 0 hurt. Source: the paper, after Shannon (1948).
    """
    log_p = torch.log_softmax(logits.float(), dim=1).clamp(min=torch.finfo(torch.float32).min)
    return (log_p.exp() * -log_p).sum(dim=1)


def vote_counts(logits: Tensor, counts: Tensor) -> None:
    """Add one dropout sample's votes to `counts`, in place: each pixel votes for its most probable class.

    `logits` is (B, C, h, w); `counts` uint8 (B, C, h, w), zero before the first of at most 255 samples. Equal logits
    vote for the smaller class.
    """
    votes = logits.max(dim=1, keepdim=True).indices  # the first of equal ones, as argmax, but up to 4 times faster
    counts.scatter_add_(1, votes, torch.ones_like(votes, dtype=torch.uint8))


def vote_entropy(counts: Tensor, samples: int) -> Tensor:
    """Entropy of the votes: V = - sum_c (n_c / N) log(n_c / N), with 0 log 0 = 0.

    `counts` is uint8 (B, C, h, w), the votes n_c, which sum to N = `samples` at every pixel. Returns float32 (B, h, w)
    in [0, log min(C, N)] up to rounding. The terms come from a table of N + 1 values and are summed in float64, class
    by class, so every device returns the same bits. Source: the paper, after Dagan and Engelson (1995).
    """
    share = np.arange(1, samples + 1) / samples
    terms = torch.from_numpy(np.concatenate([[0.0], -share * np.log(share)])).to(counts.device)
    total = torch.zeros_like(counts[:, 0], dtype=torch.float64)
    for votes in counts.unbind(dim=1):
        total += terms[votes.long()]
    return total.float()


def quantise(values: np.ndarray) -> np.ndarray:
    """Round a map to the nearest multiples of 2^-20, ties to the even one; float32 in, float32 out, any shape.

    A value moves by 2^-21 at most; one of 16 or more is such a multiple already. Why: all partial sums of a map of up
    to 2^23 cells with |value| < 2^10 are multiples of 2^-20 below 2^33, that is, integers below 2^53 times 2^-20, which
    float64 holds exactly. So sums of a map's cells have no rounding, and their order does not matter.
    """
    return np.rint(values * np.float32(1 / QUANTUM)) * np.float32(QUANTUM)
