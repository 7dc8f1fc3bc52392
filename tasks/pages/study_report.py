"""The report of a study: one HTML file, a page for Prefect's interface, and a table for the terminal."""

import textwrap

from cereals_core.curves import AXES, band, curve_of
from cereals_core.study_statistics import StudyFacts, arm_result
from tasks.pages import study_tables, study_wording
from tasks.pages.html import ENVIRONMENT
from tasks.pages.links import data_uri
from tasks.pages.markdown import escape, markdown_table
from tasks.pages.study_figures import study_curve
from tasks.pages.study_tables import STRATEGY_HEADER, strategy_rows
from tasks.pages.study_wording import headline
from tasks.pages.text import MARKS, band_plot, table
from tasks.pages.wording import UPPER_BOUND, campaign_title

TEXT_COLUMNS = 100
LEFT = 5
"""Columns of the first table of a Markdown page; a second has the others, since Prefect shows 700 px."""


def study_html(facts: StudyFacts) -> str:
    """Write the report: what was found, both curves, tables of strategies, pairs, classes and campaigns, the settings.

    Self-contained: its pictures are within it, it asks no other host and runs no script. A study in progress, or one
    that has not begun, is reported as far as it has come.
    """
    results = [arm_result(arm, facts) for arm in facts.arms]
    return ENVIRONMENT.get_template("study_report.html").render(
        facts=facts,
        results=results,
        curves={axis: study_curve(facts, axis) for axis in AXES},
        tables=study_tables,
        words=study_wording,
    )


def study_markdown(facts: StudyFacts) -> str:
    """Write the page that a Prefect artifact shows: headline, curve against clicks and tables of strategies."""
    results = [arm_result(arm, facts) for arm in facts.arms]
    rows = [
        [campaign_title(row.name, row.upper_bound), row.definition, *row.cells] for row in strategy_rows(facts, results)
    ]
    header = ["strategy", "definition", *STRATEGY_HEADER]
    parts = [
        f"# {escape(facts.name)}",
        f"**{escape(headline(facts, results))}**",
        f"![mIoU against clicks]({data_uri(study_curve(facts, 'clicks'))})",
        markdown_table(header[:LEFT], [row[:LEFT] for row in rows], {"definition": 18}),
        markdown_table([header[0], *header[LEFT:]], [[row[0], *row[LEFT:]] for row in rows]),
        escape(study_wording.STRATEGY_NOTE),
    ]
    return "\n\n".join(parts) + "\n"


def study_text(facts: StudyFacts) -> str:
    """Write headline, strategies and their curves in TEXT_COLUMNS columns.

    Long names are cut, upper bounds marked by a star. Curves are those of campaigns that ended, if they can be told
    apart.
    """
    results = [arm_result(arm, facts) for arm in facts.arms]
    rows = strategy_rows(facts, results)
    lines = [[f"{row.name} *" if row.upper_bound else row.name, *row.cells] for row in rows]
    shown = table(["strategy", *STRATEGY_HEADER], lines, "left", TEXT_COLUMNS)
    parts = [_fill(headline(facts, results)), shown.rstrip("\n")]
    if any(row.upper_bound for row in rows):
        parts.append(_fill(f"* {UPPER_BOUND}"))
    curves = {arm.name: [curve_of(run.points, "clicks") for run in arm.runs if run.ended] for arm in facts.arms}
    bands = {name: seen for name, some in curves.items() if (seen := band(some)) is not None}
    parts += [band_plot(bands).rstrip("\n")] if 0 < len(bands) <= len(MARKS) else []
    return "\n\n".join(parts) + "\n"


def _fill(text: str) -> str:
    """Break into lines of TEXT_COLUMNS columns; names, and a number and its sign, stay whole."""
    whole = text.replace(" %", "\N{NO-BREAK SPACE}%")
    return textwrap.fill(whole, TEXT_COLUMNS, break_on_hyphens=False).replace("\N{NO-BREAK SPACE}", " ")
