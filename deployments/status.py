"""What campaigns have reached, for the terminal."""

from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

from cereals_core.errors import ProductError
from cereals_core.settings_files import read_either
from tasks.pages.text import comparison_table, plot, round_table
from tasks.pages.wording import UPPER_BOUND, campaign_title
from tasks.store.history import begun_stages, evaluated_rounds, has_ended, learning_curve, product_of, products_made
from tasks.store.layout import Campaign, Study, place_of

Started = TypeVar("Started", bound=Campaign | Study)


def started(place: Started, file: Path) -> Started:
    """Return the campaign or study that a file means; ProductError if it was never started."""
    if not place.settings_file.exists():
        what, command = ("study", "study") if isinstance(place, Study) else ("campaign", "run")
        raise ProductError(f"{place.folder}: no {what} was started there; `cereals {command} {file}` starts it")
    return place


def open_started(file: Path) -> Campaign | Study:
    """Open the campaign or study of a file; ProductError if it was never started."""
    return started(place_of(read_either(file)), file)


def show_status(files: Sequence[Path]) -> str:
    """Set a table for each campaign, and their curves if there are several; of a study, its own table."""
    started = [open_started(file) for file in files]
    campaigns = [place for place in started if isinstance(place, Campaign)]
    shown = [_show_study(place) for place in started if isinstance(place, Study)]
    return "\n\n".join([*shown, *_show_campaigns(campaigns)])


def _show_study(study: Study) -> str:
    from tasks.pages.study_report import study_text  # with its plots and statistics, which campaigns do without
    from tasks.study_results import study_facts

    report = f"\nreport: {study.report_file}" if study.report_file.exists() else ""
    return study_text(study_facts(study)) + report


def _show_campaigns(campaigns: Sequence[Campaign]) -> list[str]:
    parts = [_show(campaign) for campaign in campaigns]
    if len(campaigns) > 1:
        series = {_title(each): learning_curve(each, evaluated_rounds(each)) for each in campaigns}
        parts += [comparison_table(series), plot(series)]
    return parts


def _show(campaign: Campaign) -> str:
    numbers = evaluated_rounds(campaign)
    lines = [f"{_title(campaign)}, in {campaign.folder}"]
    if campaign.settings.acquisition.cost == "true":
        lines.append(UPPER_BOUND)
    if numbers:
        pool = product_of(campaign, "pool", None)
        lines.append(round_table(learning_curve(campaign, numbers), pool.facts["pixels"]))
    if has_ended(campaign):
        lines.append(f"ended with round {numbers[-1]}")
    else:
        lines.append(_progress(campaign, numbers))
    if campaign.report_file.exists():
        lines.append(f"report: {campaign.report_file}")
    return "\n".join(lines)


def _title(campaign: Campaign) -> str:
    return campaign_title(campaign.settings.name, campaign.settings.acquisition.cost == "true")


def _progress(campaign: Campaign, evaluated: list[int]) -> str:
    number = evaluated[-1] if evaluated else 0
    if "report" in _done(campaign, number):
        number += 1
    done, begun = _done(campaign, number), begun_stages(campaign, number)
    return f"round {number}: done {', '.join(done) or 'nothing yet'}; begun {', '.join(begun) or 'nothing more'}"


def _done(campaign: Campaign, number: int) -> list[str]:
    return [product.stage for of_round, product in products_made(campaign) if of_round == number]
