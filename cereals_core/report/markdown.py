"""The page of one round as Markdown, in the dialect that Prefect's interface renders."""

import html
import re
from collections.abc import Mapping, Sequence

from cereals_core.report.facts import RoundFacts
from cereals_core.report.links import data_uri, web_link
from cereals_core.report.wording import (
    AGREEMENT_HEADER,
    AGREEMENT_NOTE,
    agreement_rows,
    campaign_title,
    caption,
    cost_sentence,
    duration,
    headline,
    number,
    size,
    true_costs,
)

MAX_PAGE_CHARS = 1_500_000
"""What a page may weigh: Prefect's interface takes longer and longer to open it, and in the end never does."""


def round_markdown(facts: RoundFacts, pictures: Mapping[str, bytes]) -> str:
    """Write a round's page: what happened, the curve, stages, IoU of each class, clicks, and the best regions.

    `pictures`: PNG files named as by `figures.round_pictures`; those that no longer fit in MAX_PAGE_CHARS are left out,
    which the page says.
    """
    parts = [
        f"# {escape(campaign_title(facts.campaign, facts.upper_bound))}, round {facts.point.round}",
        f"**{escape(headline(facts))}**",
        *_image(facts, pictures, "curve"),
        *_link(facts),
        "## Stages",
        markdown_table(["stage", "time", "written", "peak memory", "note"], _stage_rows(facts)),
        "## IoU of each class",
        markdown_table(["class", "IoU"], [[name, number(value)] for name, value in facts.class_iou.items()]),
        *(_asked(facts, pictures) if facts.queries else []),
    ]
    page = "\n\n".join(parts) + "\n"
    return page + _regions(facts, pictures, MAX_PAGE_CHARS - len(page))


def _asked(facts: RoundFacts, pictures: Mapping[str, bytes]) -> list[str]:
    return [
        f"## Clicks of this round\n\n{escape(cost_sentence(facts))}",
        markdown_table(["true cost", "clicks"], [list(row) for row in true_costs(facts.queries)]),
        *_image(facts, pictures, "cost"),
        *(_agreement(facts, pictures) if facts.cost_samples else []),
    ]


def _agreement(facts: RoundFacts, pictures: Mapping[str, bytes]) -> list[str]:
    return [
        f"## Predicted cost against baselines\n\n{AGREEMENT_NOTE}",
        markdown_table(AGREEMENT_HEADER, agreement_rows(facts.cost_samples)),
        *_image(facts, pictures, "calibration"),
    ]


def _regions(facts: RoundFacts, pictures: Mapping[str, bytes], room: int) -> str:
    names = [name for name in pictures if name.startswith("region-")]
    text = f"\n## Best {facts.unit}s\n" if names else ""
    for index, name in enumerate(names):
        block = f"\n{_image(facts, pictures, name)[0]}\n\n{escape(caption(facts, name))}\n"
        if len(text) + len(block) > room - 200:
            return f"{text}\n{len(names) - index} of {len(names)} pictures are left out to keep this page small.\n"
        text += block
    return text


def _image(facts: RoundFacts, pictures: Mapping[str, bytes], name: str) -> list[str]:
    return [f"![{escape(caption(facts, name))}]({data_uri(pictures[name])})"] if name in pictures else []


def _link(facts: RoundFacts) -> list[str]:
    link = web_link(facts.flow_run_url)
    return [f"[Flow run](<{link}>)"] if link else []


def _stage_rows(facts: RoundFacts) -> list[list[str]]:
    return [[s.name, duration(s.elapsed_s), size(s.bytes), size(s.peak_bytes), s.note] for s in facts.stages]


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table with these columns; cells are escaped, the header is not."""
    lines = [header, ["---"] * len(header), *([escape(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def escape(text: str) -> str:
    """Text that Markdown shows as it is: no tag, link, table cell or emphasis of its own, in one line."""
    return re.sub(r"([\\`*_\[\]|~#$])", r"\\\1", html.escape(" ".join(text.split()), quote=False))
