"""Every stage in the order of running, and when a round of them is finished. A new stage is its file and a row here."""

from collections.abc import Iterator

from cereals_core.settings import CampaignSettings
from tasks.cost_evaluation import evaluate_cost
from tasks.evaluation import evaluate
from tasks.features import features
from tasks.mapping import class_map, cost_map, info_map, true_cost_map
from tasks.oracle import oracle_query, seed_set
from tasks.pool import check_pool
from tasks.pretrained import pretrained
from tasks.reporting import report_round
from tasks.running.stage import SEED_ROUND, Stage
from tasks.selection import nms, region_fusion
from tasks.store.history import kept_or_pruned
from tasks.store.layout import Campaign
from tasks.store.products import Product
from tasks.training import train_cost, train_seg

FIRST = (pretrained, check_pool, seed_set, features, true_cost_map)
"""Before the first round."""
ROUND = (
    train_seg,
    evaluate,
    train_cost,
    info_map,
    cost_map,
    class_map,
    region_fusion,
    nms,
    oracle_query,
    evaluate_cost,
    report_round,
)
"""In every round; the last one asks for nothing."""
for place, each in enumerate((*FIRST, *ROUND)):
    each.place = place


def runs_of(settings: CampaignSettings, first_round: int = 0) -> Iterator[tuple[Stage, int | None]]:
    """Yield the stages that a campaign wants, stage by stage, with the rounds from `first_round` on that it is for."""
    yield from ((each, SEED_ROUND) for each in FIRST if each.wanted(settings))
    last = settings.stop.rounds
    for each in round_stages(settings):
        yield from ((each, number) for number in range(first_round, last + 1) if number < last or not each.asks)


def round_stages(settings: CampaignSettings) -> list[Stage]:
    """List the stages of a round of a campaign that asks."""
    return [each for each in ROUND if each.wanted(settings)]


def finished_round(campaign: Campaign, number: int, pool: Product, ledger: Product) -> Product | None:
    """Return the ledger after a round, if that was finished before from this pool and ledger, and nothing is missing.

    What later rounds and reports read is hashed. Weights and maps are hashed when somebody reads them.
    """
    stages = round_stages(campaign.settings)
    found = {each.name: kept_or_pruned(campaign.stage(each.name, number), hashed=each.lasting) for each in stages}
    after, reported = found[oracle_query.name], found[report_round.name]
    if None in found.values() or after is None or reported is None or reported.inputs.get("ledger") != after.digest:
        return None
    return after if (after.inputs["pool"], after.inputs["ledger"]) == (pool.digest, ledger.digest) else None
