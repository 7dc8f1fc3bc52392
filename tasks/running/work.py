"""What the body of a stage gets: campaign and round, where to write and compute, and what to leave on record."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from tasks.running.workers import current_workers
from tasks.store.layout import Campaign
from tasks.store.products import Product
from tasks.telling.progress import Tracker, track

Batch = TypeVar("Batch")
Inputs = Mapping[str, Product | None]
"""Products that a stage is given, by the names of its body's arguments."""


def there(product: Product | None) -> Product:
    """Return a product that has to be there."""
    assert product is not None
    return product


@dataclass(frozen=True)
class Work:
    """A stage at work in a campaign: the round, the folder to write into, and the facts to leave in the manifest.

    `gpu` tells whether its calls want a CUDA device.
    """

    stage: str
    campaign: Campaign
    round_number: int | None
    folder: Path
    facts: dict[str, Any]
    gpu: bool = False

    @property
    def number(self) -> int:
        """The round's number, in stages that belong to a round."""
        assert self.round_number is not None
        return self.round_number

    @property
    def lanes(self) -> int:
        """How many calls of `each` run at a time."""
        return current_workers().lanes(self.gpu)

    def each(self, function: Callable[[Batch], Any], batches: Iterable[Batch]) -> Iterator[Any]:
        """Yield results of `function` on every batch, in their order, wherever stages run; both are pickled.

        Peak memory and hosts go into the facts.
        """
        hosts, peak_bytes = set(self.facts.get("hosts", ())), self.facts.get("peak_bytes", 0)
        for done in current_workers().each(function, batches, self.gpu):
            hosts.add(done.host)
            peak_bytes = max(peak_bytes, done.peak_bytes)
            yield done.result
        self.facts.update(hosts=sorted(hosts), peak_bytes=peak_bytes)

    @contextmanager
    def track(self, total: int, unit: str, done: int = 0, at_most: bool = False) -> Iterator[Tracker]:
        """Show progress over `total` units, `done` of them already; yield what to call after each.

        How many were worked through, and in how many seconds, is added to the facts.
        """
        name = self.stage if self.round_number is None else f"round {self.round_number} {self.stage}"
        with track(name, total, unit, done, at_most) as tracker:
            yield tracker
        units, units_s = self.facts.get("units", 0), self.facts.get("units_s", 0.0)
        self.facts.update(units=units + tracker.counted, units_s=round(units_s + tracker.elapsed_s, 6))
