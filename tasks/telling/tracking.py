"""How far a piece of work has come, and who is told of it: a terminal, a Prefect run, another process."""

from collections.abc import Sequence
from dataclasses import dataclass

from tasks.pages.wording import duration


@dataclass(frozen=True)
class Reached:
    """How far a piece of work has come: `done` of `total` units, at `rate` units a second (0: not known yet).

    `at_most`: the work may end before the total is reached, as training does when it converges.
    """

    what: str
    unit: str
    done: int
    total: int
    rate: float
    note: str = ""
    at_most: bool = False

    @property
    def percent(self) -> float:
        """Share of the work that is done, in [0, 100]."""
        return min(100.0 * self.done / self.total, 100.0) if self.total else 100.0

    def __str__(self) -> str:
        """`demo round 3 info-map: 1,280 of 20,000 images, 41 images/s, 7 min 37 s left`."""
        limit = "at most " if self.at_most else ""
        parts = [f"{self.what}: {self.done:,} of {limit}{self.total:,} {self.unit}"]
        if self.rate > 0:
            digits = ",.0f" if self.rate >= 100 else ".3g"
            pace = f"{self.rate:{digits}} {self.unit}/s" if self.rate >= 1 else f"{duration(1 / self.rate)} each"
            left_s = (self.total - self.done) / self.rate
            parts += [pace, f"{limit}{duration(left_s)} left"] if left_s > 0 else [pace]
        return ", ".join([*parts, self.note] if self.note else parts)


class Sink:
    """Somewhere progress is shown; by itself it shows nothing."""

    def show(self, reached: Reached) -> None:
        """Tell how far the work is; called after every unit, so that it has to be quick."""

    def end(self, reached: Reached, whole: bool) -> None:
        """Tell that nothing more comes; `whole`: the work ended well, all of it."""


class Listener:
    """Whoever is told of the work of a thread, and may call it off; by itself it hears nothing, and lets work go on."""

    def sinks(self, reached: Reached) -> Sequence[Sink]:
        """Open what shows a piece of work that is about to begin."""
        return ()

    def is_cancelled(self) -> bool:
        """Tell whether nobody waits for the work any more."""
        return False
