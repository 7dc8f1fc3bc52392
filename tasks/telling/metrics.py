"""`metrics.prom`: what a campaign has reached and what its stages took, for Prometheus; from its manifests alone."""

from collections.abc import Callable, Iterable

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics_core import GaugeMetricFamily
from prometheus_client.registry import Collector

from tasks.store.history import products_made
from tasks.store.layout import Campaign
from tasks.store.products import Product
from tasks.store.storage import write_atomically

EXPOSITION = "metrics.prom"
"""Rewritten after every stage, in the format that Prometheus' node_exporter collects from files."""
Made = tuple[int | None, Product]
"""A product and its round."""
OF_STAGES: dict[str, tuple[str, Callable[[Product], float | None]]] = {
    "cereals_stage_seconds": ("Time of the attempt that finished the stage.", lambda made: made.elapsed_s),
    "cereals_stage_bytes": ("Size of the stage's product.", lambda made: made.total_bytes),
    "cereals_stage_peak_memory_bytes": (
        "Largest resident memory of a process that computed the stage.",
        lambda made: made.facts.get("peak_bytes"),
    ),
    "cereals_stage_units_per_second": (
        "Steps, images or shards in a second of the attempt that finished the stage.",
        lambda made: units_per_second(made),
    ),
}
OF_ROUNDS = {
    "cereals_round_miou": ("Mean IoU on the evaluation split after the round's training, 0 to 1.", "miou"),
    "cereals_round_clicks": ("Clicks that the labels of the round's training have cost in all.", "clicks"),
    "cereals_round_pixels": ("Labelled pixels of the round's training.", "pixels"),
}


def units_per_second(product: Product) -> float | None:
    """Return how many of its units of work the stage did in a second; None if it counts none."""
    units, elapsed_s = product.facts.get("units"), product.facts.get("units_s")
    return units / elapsed_s if units and elapsed_s else None


def write_metrics(campaign: Campaign) -> None:
    """Rewrite the campaign's `metrics.prom`; manifests that have not changed are not read again."""
    registry = CollectorRegistry()
    registry.register(_Figures(campaign.settings.name, list(products_made(campaign))))
    write_atomically(campaign.folder / EXPOSITION, generate_latest(registry))


class _Figures(Collector):
    """Hands the figures of one campaign to Prometheus' client."""

    def __init__(self, campaign: str, made: list[Made]) -> None:
        self.campaign, self.made = campaign, made

    def collect(self) -> Iterable[GaugeMetricFamily]:
        for name, (help_text, figure) in OF_STAGES.items():
            points = (((_round(number), each.stage), figure(each)) for number, each in self.made)
            yield self._family(name, help_text, ("round", "stage"), points)
        evaluated = [(_round(number), each.facts) for number, each in self.made if each.stage == "evaluate"]
        for name, (help_text, fact) in OF_ROUNDS.items():
            yield self._family(
                name, help_text, ("round",), (((number,), facts.get(fact)) for number, facts in evaluated)
            )
        done = sum(each.stage == "report" for _, each in self.made)
        last = max((each.made_at for _, each in self.made), default=None)
        yield self._family("cereals_rounds_done", "Rounds that have ended with their report.", (), [((), done)])
        help_text = "When the newest product was finished, in seconds since the epoch."
        yield self._family("cereals_last_stage_timestamp_seconds", help_text, (), [((), last)])

    def _family(
        self, name: str, text: str, labels: tuple[str, ...], points: Iterable[tuple[tuple[str, ...], float | None]]
    ) -> GaugeMetricFamily:
        family = GaugeMetricFamily(name, text, labels=("campaign", *labels))
        for values, figure in points:
            if figure is not None:
                family.add_metric((self.campaign, *values), figure)
        return family


def _round(number: int | None) -> str:
    """Return the round's number; empty for stages before the first round, which Prometheus takes for no such label."""
    return "" if number is None else str(number)
