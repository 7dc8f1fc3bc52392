"""Stages in words: what each made, how long it took, and where."""

from collections.abc import Sequence

from tasks.pages.facts import RoundFacts, StageFacts
from tasks.pages.wording import duration, share, size
from tasks.store.products import Product


def stage_facts(product: Product) -> StageFacts:
    """Return what is said of a stage, from its product's manifest."""
    facts = product.facts
    ran_on = ", ".join(facts.get("hosts", ()))
    return StageFacts(
        product.stage, product.elapsed_s, product.total_bytes, facts.get("peak_bytes", 0), facts.get("note", ""), ran_on
    )


def stage_line(title: str, facts: StageFacts) -> str:
    """Write a line for the log; `title` as from `stage_title`."""
    peak = f"{size(facts.peak_bytes)} peak memory" if facts.peak_bytes else ""
    done = f"done in {duration(facts.elapsed_s)}{f' on {facts.ran_on}' if facts.ran_on else ''}"
    parts = [done, facts.note, f"{size(facts.bytes)} written", peak]
    return f"{title}: {'; '.join(filter(None, parts))}"


def where_run(stages: Sequence[StageFacts]) -> str:
    """Name the one place where all stages ran; empty if there are several, or one that is not known."""
    places = {stage.ran_on for stage in stages}
    return places.pop() if len(places) == 1 else ""


def time_sentence(facts: RoundFacts) -> str:
    """Tell how long the round's stages took, which of them the longest, and where they ran; empty without any."""
    if not facts.stages:
        return ""
    total_s, longest = (
        sum(stage.elapsed_s for stage in facts.stages),
        max(facts.stages, key=lambda each: each.elapsed_s),
    )
    place = where_run(facts.stages)
    return (
        f"The stages of this round took {duration(total_s)}{f' on {place}' if place else ''}, "
        f"{longest.name} the longest ({share(longest.elapsed_s, total_s)})."
    )
