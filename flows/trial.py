"""A campaign without Prefect and without a word, for what its manifests say of the machine."""

from itertools import count

from flows.campaign import begin
from flows.round import run_round
from tasks.store.layout import Campaign


def run_quietly(campaign: Campaign) -> None:
    """Run a campaign to its end."""
    given, ledger = begin(campaign)
    for number in count():
        outcome = run_round.fn(campaign, number, given, ledger)
        if outcome.stop_reason is not None:
            return
        ledger = outcome.ledger
