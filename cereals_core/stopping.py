"""When a campaign ends."""

from collections.abc import Sequence
from typing import Protocol

from cereals_core.settings import Stop


class Measured(Protocol):
    """Results of a round."""

    @property
    def miou(self) -> float:
        """Mean IoU on the evaluation split."""
        ...

    @property
    def clicks(self) -> float:
        """True clicks spent on the labels it was trained on."""
        ...


def stop_reason(stop: Stop, rounds: Sequence[Measured]) -> str | None:
    """Tell why the campaign ends after the last of `rounds` (round 0 first, at least one), or None to go on."""
    last = rounds[-1]
    if stop.target_miou is not None and last.miou >= stop.target_miou:
        return f"target reached: mIoU {last.miou:.4f}, wanted {stop.target_miou}"
    if stop.clicks is not None and last.clicks >= stop.clicks:
        return f"budget spent: {last.clicks:,.0f} of {stop.clicks:,.0f} clicks"
    if stop.converged_rounds is not None and _has_converged(stop.converged_rounds, stop.min_gain, rounds):
        return f"converged: mIoU has not risen by {stop.min_gain} for {stop.converged_rounds} rounds"
    if len(rounds) > stop.rounds:
        return f"all {stop.rounds} rounds of queries are done"
    return None


def _has_converged(patience: int, min_gain: float, rounds: Sequence[Measured]) -> bool:
    if len(rounds) <= patience:
        return False
    best_before = max(measured.miou for measured in rounds[:-patience])
    return all(measured.miou < best_before + min_gain for measured in rounds[-patience:])
