"""Replay: a past round's queries under other settings of acquisition, from its stored maps; nothing is written."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from cereals_core.acquisition_settings import Acquisition
from cereals_core.errors import SettingsError
from tasks.region_maps import Regions, Scales
from tasks.scoring import Proposing, best_queries
from tasks.store import tables
from tasks.store.history import finished_rounds, ledger_before, maps_of, product_of
from tasks.store.layout import Campaign
from tasks.store.ledger import Ledger, Row, box_of, by_image
from tasks.store.pool import open_pool


@dataclass(frozen=True)
class Variant:
    """Another way to choose a round's queries, and what is said of it."""

    name: str
    wanted: Acquisition


@dataclass(frozen=True)
class Reselection:
    """What a variant would have asked for in place of `asked`, the round's own queries."""

    variant: Variant
    queries: Sequence[Row]
    asked: Sequence[Row]
    elapsed_s: float

    @property
    def kept(self) -> int:
        """Queries that the round asked for too, box for box."""
        return len({_key(query) for query in self.queries} & {_key(query) for query in self.asked})

    @property
    def new(self) -> list[Row]:
        """Queries that the round did not ask for, the best first."""
        before = {_key(query) for query in self.asked}
        return [query for query in self.queries if _key(query) not in before]

    @property
    def dropped(self) -> list[Row]:
        """Queries of the round that the variant does not ask for, the best first."""
        now = {_key(query) for query in self.queries}
        return [query for query in self.asked if _key(query) not in now]

    @property
    def shared_pixels(self) -> int:
        """Pixels that both ask for."""
        asked = by_image(self.asked)
        return sum(
            box_of(query).intersection_pixels(box_of(other))
            for query in self.queries
            for other in asked.get(query["image_id"], ())
        )


def variants(
    base: Acquisition,
    fusions: Sequence[str] = (),
    alphas: Sequence[float] = (),
    windows_px: Sequence[int] = (),
    images_per_round: Sequence[float] = (),
    clicks_per_round: Sequence[float] = (),
) -> list[Variant]:
    """Combine the values given in every way, others as in `base`; SettingsError for a way that does not go together."""
    budgets: list[dict[str, Any]] = [{"images_per_round": each, "clicks_per_round": None} for each in images_per_round]
    budgets += [{"clicks_per_round": each} for each in clicks_per_round]
    made: list[Variant] = []
    for fusion, window_px, budget in product(
        fusions or [base.fusion], windows_px or [base.window_px], budgets or [dict[str, Any]()]
    ):
        for alpha in alphas if alphas and fusion == "g3" else [base.alpha]:
            changed = {"fusion": fusion, "alpha": alpha, "window_px": window_px, **budget}
            made.append(Variant(_name(base, changed), _changed(base, changed)))
    return made


def _changed(base: Acquisition, changed: dict[str, Any]) -> Acquisition:
    try:
        return Acquisition.model_validate(base.model_dump(exclude={"strategy"}) | changed)
    except ValueError as error:
        raise SettingsError(f"replay of {changed}: {error}") from None


def _name(base: Acquisition, changed: dict[str, Any]) -> str:
    fusion = f"g3 alpha {changed['alpha']:g}" if changed["fusion"] == "g3" else changed["fusion"]
    others = [key for key in changed if key not in ("fusion", "alpha") and changed[key] != getattr(base, key)]
    return ", ".join([fusion, *(f"{key} {changed[key]:g}" for key in others if changed[key] is not None)])


def replay(campaign: Campaign, number: int, wanted: Sequence[Variant]) -> Iterator[Reselection]:
    """Choose the round's queries again, once for each variant; region maps of a window are scaled once."""
    settings, rounds = campaign.settings, finished_rounds(campaign)
    if number not in rounds:
        have = f"rounds 0 to {rounds[-1]} have" if rounds else "none has yet"
        raise SettingsError(f"{campaign.folder}: round {number} has not asked; {have}")
    asked = tables.QUERIES.read(product_of(campaign, "oracle-query", number)).to_pylist()
    pool = open_pool(campaign, product_of(campaign, "pool", None))
    ledger, maps = Ledger(ledger_before(campaign, number)), maps_of(campaign, number)
    scales: dict[int, Scales] = {}
    for variant in wanted:
        started = time.monotonic()
        if variant.wanted.fusion != "none" and maps["cost"] is None:
            raise SettingsError(f"round {number} has no cost map, which {variant.name} needs; replay fusion none")
        regions = Regions(variant.wanted, pool, ledger, maps, settings.seed, number)
        if variant.wanted.window_px not in scales:
            scales[variant.wanted.window_px] = regions.scales()
        proposals = Proposing(regions, scales[variant.wanted.window_px]).all()
        queries = best_queries(variant.wanted, pool, proposals)
        yield Reselection(variant, queries, asked, time.monotonic() - started)


def _key(query: Row) -> tuple[object, ...]:
    return query["image_id"], *box_of(query)
