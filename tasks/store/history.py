"""What a campaign has reached, from its manifests alone; needs neither Prefect nor torch."""

from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

from cereals_core.curves import Point
from cereals_core.location import is_on_disk
from cereals_core.stopping import stop_reason
from tasks.store.layout import Campaign
from tasks.store.products import (
    MANIFEST,
    WORK_FOLDER,
    Product,
    find_product,
    is_pruned,
    recorded,
    recorded_version,
    require,
)
from tasks.store.storage import files_below, names_in, version_of

HASHED_AT_END_BYTES = 16 << 20
"""Products of an ended campaign up to this size are hashed before it is taken for whole."""


def product_of(campaign: Campaign, stage: str, number: int | None) -> Product:
    """Return the product of a stage, or raise a ProductError that says how to get it."""
    folder = campaign.stage(stage, number)
    return require(find_product(folder), folder)


def kept_or_pruned(folder: Path, hashed: bool) -> Product | None:
    """Find the product in a folder if it is valid, or was until its maps were removed on purpose."""
    return find_product(folder, hashed=hashed) or (recorded(folder) if is_pruned(folder) else None)


def finished_rounds(campaign: Campaign) -> list[int]:
    """List the numbers of the rounds that asked and were reported: 0, 1, ... without a gap."""
    stages = ("oracle-query", "report")
    numbers: list[int] = []
    for number in campaign.rounds():
        made = (recorded(campaign.stage(name, number)) for name in stages)
        if number != len(numbers) or not all(made):
            break
        numbers.append(number)
    return numbers


def evaluated_rounds(campaign: Campaign) -> list[int]:
    """List the numbers of the rounds whose model was evaluated: 0, 1, ... without a gap."""
    numbers: list[int] = []
    for number in campaign.rounds():
        if number != len(numbers) or find_product(campaign.stage("evaluate", number)) is None:
            break
        numbers.append(number)
    return numbers


def learning_curve(campaign: Campaign, numbers: list[int]) -> list[Point]:
    """Return mIoU, clicks and pixels of these rounds."""
    facts = [product_of(campaign, "evaluate", number).facts for number in numbers]
    return [Point(each["round"], each["miou"], each["clicks"], each["pixels"]) for each in facts]


def has_ended(campaign: Campaign) -> bool:
    """Tell whether the last round was reported without asking for anything."""
    rounds = evaluated_rounds(campaign)
    reported = recorded(campaign.stage("report", rounds[-1])) if rounds else None
    return reported is not None and reported.inputs["ledger"] == ledger_before(campaign, rounds[-1]).digest


def why_stop(campaign: Campaign, number: int, ledger: Product) -> str | None:
    """Tell why the campaign ends with this round, which has been evaluated, or None."""
    if ledger.facts["regions"] == 0:
        return "the pool holds no more regions to ask for"
    return stop_reason(campaign.settings.stop, learning_curve(campaign, list(range(number + 1))))


def end_of(campaign: Campaign) -> str | None:
    """Tell why a campaign has ended; None if it has not, or if anything of it is missing or damaged.

    What products were made from has to be there, and every round's report. Large products (weights, maps) are compared
    by their sizes alone.
    """
    if not (has_ended(campaign) and campaign.report_file.exists() and campaign.ledger_file.exists()):
        return None
    made: list[Product] = []
    for _, folder, _ in manifests(campaign):
        told = recorded(folder)
        if told is None or kept_or_pruned(folder, hashed=told.total_bytes <= HASHED_AT_END_BYTES) is None:
            return None
        made.append(told)
    rounds, digests = evaluated_rounds(campaign), {each.digest for each in made}
    reports = sum(each.stage == "report" for each in made)
    if reports < len(rounds) or not all(digests.issuperset(each.inputs.values()) for each in made):
        return None
    return why_stop(campaign, rounds[-1], ledger_before(campaign, rounds[-1]))


def products_made(campaign: Campaign) -> Iterator[tuple[int | None, Product]]:
    """Yield every product whose manifest is valid, with its round, in the order of running; no other file is read.

    Manifests that have not changed since they were read in this process are not read again.
    """
    for number, some in groupby(manifests(campaign), lambda each: each[0]):
        found = (recorded_version(folder, version) for _, folder, version in some)
        for product in sorted(filter(None, found), key=lambda each: each.facts.get("place", 0)):
            yield number, product


def manifests(campaign: Campaign) -> Iterator[tuple[int | None, Path, object]]:
    """Yield round and folder of every product that has a manifest, valid or not, and what changes with the manifest."""
    on_disk = is_on_disk(campaign.folder)
    stored = {} if on_disk else files_below(campaign.folder)  # one request tells all
    for number in (None, *campaign.rounds()):
        parent = campaign.folder if number is None else campaign.round(number)
        for name in sorted(name for name in names_in(parent) if not name.startswith(".")):
            file = parent / name / MANIFEST
            version = version_of(file) if on_disk else stored.get(str(file).removeprefix(f"{campaign.folder}/"))
            if version is not None:
                yield number, file.parent, version


def begun_stages(campaign: Campaign, number: int) -> list[str]:
    """Name the stages of a round that have begun and left no product yet."""
    found = (WORK_FOLDER.fullmatch(name) for name in names_in(campaign.round(number)))
    return sorted({each[1] for each in found if each and recorded(campaign.stage(each[1], number)) is None})


def ledger_before(campaign: Campaign, number: int) -> Product:
    """Return the product with the ledger that a round was trained on."""
    return product_of(campaign, "oracle-query", number - 1) if number else product_of(campaign, "seed-set", None)


def maps_of(campaign: Campaign, number: int) -> dict[str, Product | None]:
    """Return products of a round's maps by what they hold; None for one that its strategy does not make."""
    wanted = campaign.settings.acquisition
    cost = {"learned": ("cost-map", number), "true": ("true-cost-map", None), "none": None}[wanted.cost]
    information = ("info-map", number) if not wanted.is_drawn else None
    classes = ("class-map", number) if wanted.needs_classes else None
    named = {"information": information, "cost": cost, "classes": classes}
    return {name: product_of(campaign, *stage) if stage else None for name, stage in named.items()}
