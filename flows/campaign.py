"""A campaign: a seed set, then round after round until the budget is spent or the target is reached."""

from itertools import count

from prefect import flow
from prefect.task_runners import ThreadPoolTaskRunner

from cereals_core.settings import CampaignSettings
from flows.round import Outcome, run_round
from tasks.oracle import seed_set
from tasks.reporting import finished_round, report_campaign
from tasks.start import check_pool, open_campaign, writing


@flow(
    name="campaign",
    flow_run_name="{settings.name}",
    task_runner=ThreadPoolTaskRunner(max_workers=1),  # type: ignore[arg-type]
)
def run_campaign(settings: CampaignSettings) -> str:
    """Start the campaign or go on with it; returns why it ended."""
    campaign = open_campaign(settings)
    with writing(campaign):
        pool = check_pool(campaign)
        ledger = seed_set(campaign, pool=pool)
        for number in count():
            ledger_after = finished_round(campaign, number, pool, ledger)
            outcome = Outcome(ledger_after, None) if ledger_after else run_round(campaign, number, pool, ledger)
            if outcome.stop_reason is not None:
                report_campaign(campaign)
                return outcome.stop_reason
            ledger = outcome.ledger
    raise AssertionError("unreachable")
