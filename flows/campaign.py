"""A campaign: a seed set, then round after round until the budget is spent or the target is reached."""

from datetime import datetime
from itertools import count
from pathlib import Path

from prefect import flow
from prefect.exceptions import CancelledRun

from cereals_core.settings import CampaignSettings
from flows.round import Given, run_round
from tasks.features import features
from tasks.forecast.needs import refuse_unaffordable
from tasks.mapping import true_cost_map
from tasks.oracle import seed_set
from tasks.pool import check_pool, refuse_changed
from tasks.pretrained import pretrained
from tasks.reporting import copy_ledger, report_campaign, tell_round
from tasks.running.opening import open_campaign, writing
from tasks.running.stage import ONE_AT_A_TIME
from tasks.running.workers import computing
from tasks.stages import finished_round
from tasks.store.history import evaluated_rounds
from tasks.store.layout import Campaign
from tasks.store.products import Product
from tasks.telling.orphans import crash_orphans
from tasks.telling.progress import stop_at


@flow(name="campaign", flow_run_name="{settings.name}", task_runner=ONE_AT_A_TIME)
def run_campaign(
    settings: CampaignSettings, shared: Path | None = None, rounds: int | None = None, until: datetime | None = None
) -> str:
    """Start the campaign or go on with it; returns why it ended, or where this run left it.

    `shared`: folder of products that campaigns with equal beginnings have in common. `rounds`: leave after so many
    rounds. `until`: leave at this moment, after the step in hand; the next run goes on from there.
    """
    campaign = open_campaign(settings, shared)
    with writing(campaign), computing(settings.compute), stop_at(until) as passed:
        crash_orphans(campaign)
        try:
            return _advance(campaign, rounds)
        except CancelledRun:
            if not passed.is_set():
                raise
            return f"left at {until:%Y-%m-%d %H:%M}, {len(evaluated_rounds(campaign))} rounds evaluated so far"


def begin(campaign: Campaign) -> tuple[Given, Product]:
    """Make what all rounds share, and the seed set's ledger; nothing is spent on a campaign that does not fit."""
    settings = campaign.settings
    weights = pretrained(campaign) if pretrained.wanted(settings) else None
    pool = check_pool(campaign)
    refuse_changed(campaign, pool)
    refuse_unaffordable(campaign, pool)
    ledger = seed_set(campaign, pool=pool)
    encoded = features(campaign, pool=pool, pretrained=weights) if features.wanted(settings) else None
    true_cost = true_cost_map(campaign, pool=pool) if true_cost_map.wanted(settings) else None
    return Given(pool, weights, encoded, true_cost), ledger


def _advance(campaign: Campaign, rounds: int | None) -> str:
    """Run round after round until the campaign ends, or so many of them were run."""
    given, ledger = begin(campaign)
    first = None
    for number in count():
        done = finished_round(campaign, number, given.pool, ledger)
        if done is not None:
            ledger = done
            continue
        first = number if first is None else first
        if rounds is not None and number == first + rounds:
            return f"left after {rounds} rounds; round {number} is next"
        outcome = run_round(campaign, number, given, ledger)
        tell_round(campaign, number)
        if outcome.stop_reason is not None:
            copy_ledger(campaign, outcome.ledger)
            report_campaign(campaign)
            return outcome.stop_reason
        ledger = outcome.ledger
    raise AssertionError("unreachable")


def run_quietly(campaign: Campaign) -> None:
    """Run a campaign to its end without Prefect and without a word, for what its manifests say of the machine."""
    given, ledger = begin(campaign)
    for number in count():
        outcome = run_round.fn(campaign, number, given, ledger)
        if outcome.stop_reason is not None:
            return
        ledger = outcome.ledger
