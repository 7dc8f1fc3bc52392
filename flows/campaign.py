"""A campaign: a seed set, then round after round until the budget is spent or the target is reached."""

from itertools import count
from pathlib import Path

from prefect import flow
from prefect.task_runners import ThreadPoolTaskRunner

from cereals_core.settings import CampaignSettings
from flows.round import Given, Outcome, run_round
from tasks.mapping import true_cost_map
from tasks.oracle import seed_set
from tasks.pretrained import pretrained
from tasks.reporting import finished_round, report_campaign
from tasks.start import check_pool, open_campaign, writing


@flow(
    name="campaign",
    flow_run_name="{settings.name}",
    task_runner=ThreadPoolTaskRunner(max_workers=1),  # type: ignore[arg-type]
)
def run_campaign(settings: CampaignSettings, shared: Path | None = None) -> str:
    """Start the campaign or go on with it; returns why it ended.

    `shared`: folder of products that campaigns with equal beginnings have in common.
    """
    campaign = open_campaign(settings, shared)
    with writing(campaign):
        weights = pretrained(campaign) if settings.model.weights is not None else None
        pool = check_pool(campaign)
        ledger = seed_set(campaign, pool=pool)
        true_cost = true_cost_map(campaign, pool=pool) if settings.acquisition.cost == "true" else None
        given = Given(pool, weights, true_cost)
        for number in count():
            ledger_after = finished_round(campaign, number, pool, ledger)
            outcome = Outcome(ledger_after, None) if ledger_after else run_round(campaign, number, given, ledger)
            if outcome.stop_reason is not None:
                report_campaign(campaign)
                return outcome.stop_reason
            ledger = outcome.ledger
    raise AssertionError("unreachable")
