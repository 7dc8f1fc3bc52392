"""Stages in words: what each made, how long it took, and where."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tasks.pages.facts import RoundFacts, StageFacts
from tasks.pages.wording import clicks, duration, number, plural, share, size

_Facts = Mapping[str, Any]
_NOTES: dict[str, Callable[[_Facts], str]] = {
    "pretrained": lambda of: f"{of['parameters']:,} parameters",
    "pool": lambda of: f"{of['images']:,} images to ask of, {of['eval_images']:,} to evaluate on",
    "seed-set": lambda of: f"{plural(of['images'], 'image')} labelled in full, {clicks(of['clicks'])} clicks",
    "true-cost-map": lambda of: plural(of["images"], "image"),
    "train-seg": lambda of: _trained(of, "nats"),
    "train-cost": lambda of: _trained(of, "clicks²"),
    "evaluate": lambda of: f"mIoU {number(of['miou'], 4)}",
    "info-map": lambda of: plural(of["images"], "image"),
    "cost-map": lambda of: plural(of["images"], "image"),
    "region-fusion": lambda of: f"{of['candidates']:,} candidate windows",
    "nms": lambda of: f"{of['proposals']:,} proposals",
    "oracle-query": lambda of: f"{of['regions']:,} regions in {of['images']:,} images, {clicks(of['clicks'])} clicks",
    "evaluate-cost": lambda of: (
        f"rank correlation {number(of['spearman_queried'], 2)} queried, {number(of['spearman_random'], 2)} random"
    ),
}


def _trained(of: _Facts, unit: str) -> str:
    """What a training did."""
    return (
        f"{plural(of['images'], 'image')}, {of['epochs']:,} epochs, {of['steps']:,} steps, loss {of['loss']:.4f} {unit}"
    )


def stage_facts(stage: str, elapsed_s: float, total_bytes: int, facts: Mapping[str, Any]) -> StageFacts:
    """What is said of a stage; `facts`: those in its product's manifest, among them what it made, and where."""
    note = _NOTES[stage](facts) if stage in _NOTES else ""
    ran_on = ", ".join(facts.get("hosts", ()))
    return StageFacts(stage, elapsed_s, total_bytes, facts.get("peak_bytes", 0), note, ran_on)


def stage_line(title: str, facts: StageFacts) -> str:
    """A line for the log; `title` as from `stage_title`."""
    peak = f"{size(facts.peak_bytes)} peak memory" if facts.peak_bytes else ""
    done = f"done in {duration(facts.elapsed_s)}{f' on {facts.ran_on}' if facts.ran_on else ''}"
    parts = [done, facts.note, f"{size(facts.bytes)} written", peak]
    return f"{title}: {'; '.join(filter(None, parts))}"


def where_run(stages: Sequence[StageFacts]) -> str:
    """The one place where all stages ran; empty if there are several, or one that is not known."""
    places = {stage.ran_on for stage in stages}
    return places.pop() if len(places) == 1 else ""


def time_sentence(facts: RoundFacts) -> str:
    """How long the round's stages took, which of them the longest, and where they ran; empty without any."""
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
