"""One round: learn from all labels so far, score the pool, ask for the best regions."""

from dataclasses import dataclass

from prefect import flow

from tasks.cost_evaluation import evaluate_cost
from tasks.evaluation import evaluate
from tasks.mapping import class_map, cost_map, info_map
from tasks.oracle import oracle_query
from tasks.reporting import report_round
from tasks.running.stage import ONE_AT_A_TIME
from tasks.selection import nms, region_fusion
from tasks.store.history import why_stop
from tasks.store.layout import Campaign
from tasks.store.products import Product
from tasks.training import train_cost, train_seg


@dataclass(frozen=True)
class Given:
    """What all rounds share: the pool, and what else the settings ask for that needs no round."""

    pool: Product
    pretrained: Product | None = None
    features: Product | None = None
    true_cost: Product | None = None


@dataclass(frozen=True)
class Outcome:
    """What a round leaves: the ledger for the next one, or why there is none."""

    ledger: Product
    stop_reason: str | None


@flow(
    name="round",
    flow_run_name="{campaign.settings.name} round {number}",
    task_runner=ONE_AT_A_TIME,
    validate_parameters=False,
)
def run_round(campaign: Campaign, number: int, given: Given, ledger: Product) -> Outcome:
    """Train, evaluate, and unless the campaign ends here: map, fuse, suppress, ask."""
    settings, pool, seen = campaign.settings, given.pool, {"pool": given.pool, "features": given.features}
    model = train_seg(campaign, number, ledger=ledger, pretrained=given.pretrained, **seen)
    metrics = evaluate(campaign, number, ledger=ledger, model=model, **seen)

    reason = why_stop(campaign, number, ledger)
    if reason is not None:
        report_round(campaign, number, pool=pool, ledger=ledger, metrics=metrics)
        return Outcome(ledger, reason)

    information, cost, classes, cost_model = None, given.true_cost, None, None
    if train_cost.wanted(settings):
        cost_model = train_cost(campaign, number, ledger=ledger, model=model, **seen)
        cost = cost_map(campaign, number, ledger=ledger, model=cost_model, **seen)
    if info_map.wanted(settings):
        information = info_map(campaign, number, ledger=ledger, model=model, **seen)
    if class_map.wanted(settings):
        classes = class_map(campaign, number, ledger=ledger, model=model, **seen)

    maps = {"information": information, "cost": cost, "classes": classes}
    scales = region_fusion(campaign, number, pool=pool, ledger=ledger, **maps)
    proposals = nms(campaign, number, pool=pool, ledger=ledger, scales=scales, **maps)
    answers = oracle_query(campaign, number, pool=pool, ledger=ledger, proposals=proposals)
    agreement = None
    if cost_model is not None:
        agreement = evaluate_cost(campaign, number, ledger=ledger, answers=answers, model=cost_model, **seen)
    report_round(campaign, number, pool=pool, ledger=answers, metrics=metrics, agreement=agreement)
    return Outcome(answers, None)
