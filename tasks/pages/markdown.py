"""The page of one round as Markdown, in the dialect that Prefect's interface renders."""

import html
import re
import textwrap
from collections.abc import Mapping, Sequence
from itertools import chain

from tasks.pages.facts import RoundFacts
from tasks.pages.links import data_uri, web_link
from tasks.pages.stages import time_sentence, where_run
from tasks.pages.standing import STANDING_HEADER, budget_sentence, standing_rows
from tasks.pages.wording import (
    ABSENT,
    AGREEMENT_HEADER,
    AGREEMENT_NOTE,
    WORDS,
    agreement_rows,
    caption,
    choice_sentence,
    cost_sentence,
    duration,
    number,
    round_title,
    sentences,
    share,
    size,
    true_costs,
)

CLASSES_ABREAST = 3
MAX_PAGE_CHARS = 1_500_000
"""The most characters of a page: Prefect's interface takes longer and longer to open it, and in the end never does."""


def round_markdown(facts: RoundFacts, pictures: Mapping[str, bytes]) -> str:
    """Write a round's page: what happened, where the campaign stands, what was asked, stages, classes, and the words.

    `pictures`: PNG files named as by `figures.round_pictures`; those that no longer fit in MAX_PAGE_CHARS are left out,
    which the page says.
    """
    head = [
        f"# {escape(round_title(facts))}",
        *_links(facts),
        *(escape(sentence) for sentence in sentences(facts)),
        *_standing(facts),
        *_image(facts, pictures, "curve"),
    ]
    tail = [
        *(_asked(facts, pictures) if facts.queries else []),
        *_stages(facts),
        "## IoU of each class",
        _class_table(facts.class_iou),
        "## Words of this page",
        "\n".join(f"- **{word}**: {escape(meaning)}" for word, meaning in WORDS.items()),
    ]
    room = MAX_PAGE_CHARS - sum(len(part) + 2 for part in (*head, *tail))
    return "\n\n".join([*head, *_regions(facts, pictures, room), *tail]) + "\n"


def _links(facts: RoundFacts) -> list[str]:
    named = {**facts.links, "Flow run": facts.flow_run_url}
    links = {name: web_link(address) for name, address in named.items()}
    shown = [f"[{escape(name)}](<{link}>)" for name, link in links.items() if link]
    return [" · ".join(shown)] if shown else []


def _standing(facts: RoundFacts) -> list[str]:
    table = markdown_table(STANDING_HEADER, standing_rows(facts))
    return [part for part in ("## Where the campaign stands", escape(budget_sentence(facts)), table) if part]


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


def _regions(facts: RoundFacts, pictures: Mapping[str, bytes], room: int) -> list[str]:
    """List the best regions that were asked for, as many as there is room for."""
    names = [name for name in pictures if name.startswith("region-")]
    if not names:
        return []
    parts = [f"## What it asked for\n\n{escape(choice_sentence(facts, len(names)))}"]
    for index, name in enumerate(names):
        block = [*_image(facts, pictures, name), escape(caption(facts, name))]
        room -= sum(len(part) + 2 for part in block)
        if room < 200:
            return [*parts, f"{len(names) - index} of {len(names)} pictures are left out to keep this page small."]
        parts += block
    return parts


def _image(facts: RoundFacts, pictures: Mapping[str, bytes], name: str) -> list[str]:
    return [f"![{escape(caption(facts, name))}]({data_uri(pictures[name])})"] if name in pictures else []


def _stages(facts: RoundFacts) -> list[str]:
    """Tell what took how long, and where, if that is not the same for all."""
    total_s, places = sum(stage.elapsed_s for stage in facts.stages), not where_run(facts.stages)
    places = places and any(stage.ran_on for stage in facts.stages)
    header = ["stage", "time", "share", "peak memory", "written", *(["ran on"] if places else []), "result"]
    rows = [
        [
            *(stage.name, duration(stage.elapsed_s), share(stage.elapsed_s, total_s)),
            *(
                size(stage.peak_bytes) if stage.peak_bytes else ABSENT,
                size(stage.bytes),
                *([stage.ran_on] if places else []),
                stage.note,
            ),
        ]
        for stage in facts.stages
    ]
    table = markdown_table(header, rows, {"ran on": 14, "result": 22} if places else {"result": 34})
    return [part for part in ("## Stages", escape(time_sentence(facts)), table) if part]


def _class_table(class_iou: Mapping[str, float]) -> str:
    """Set classes side by side, so that many of them do not make a long page."""
    pairs = [(name, number(value)) for name, value in class_iou.items()]
    abreast = min(CLASSES_ABREAST, max(len(pairs), 1))
    pairs += [("", "")] * (-len(pairs) % abreast)
    rows = [list(chain(*pairs[start : start + abreast])) for start in range(0, len(pairs), abreast)]
    return markdown_table(["class", "IoU"] * abreast, rows)


def markdown_table(
    header: Sequence[str], rows: Sequence[Sequence[str]], widths: Mapping[str, int] | None = None
) -> str:
    """Write a table with the columns of `header`; cells are escaped, the header is not.

    `widths`: characters after which cells of a column are broken. Prefect's interface breaks none by itself, and hides
    what of a table is wider than its page until it is scrolled.
    """
    broken = [(widths or {}).get(name) for name in header]
    cells = [[_cell(cell, width) for cell, width in zip(row, broken, strict=True)] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in [header, ["---"] * len(header), *cells])


def _cell(text: str, width: int | None) -> str:
    if width is None:
        return escape(text)
    lines = textwrap.wrap(" ".join(text.split()), width, break_long_words=False, break_on_hyphens=False)
    return "<br>".join(escape(line) for line in lines)


def escape(text: str) -> str:
    """Escape text so that Markdown shows it as it is: no tag, link, table cell or emphasis of its own, in one line."""
    return re.sub(r"([\\`*_\[\]|~#$])", r"\\\1", html.escape(" ".join(text.split()), quote=False))
