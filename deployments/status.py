"""What campaigns have reached, for the terminal."""

from collections.abc import Sequence
from pathlib import Path

from cereals_core.errors import ProductError
from cereals_core.report.text import comparison_table, plot, round_table
from cereals_core.settings_files import read_settings
from tasks.history import evaluated_rounds, finished_stages, learning_curve, product_of
from tasks.layout import ROUND_STAGES, Campaign


def open_existing(file: Path) -> Campaign:
    """The campaign of a campaign file; ProductError if it was never started."""
    settings = read_settings(file)
    campaign = Campaign(settings.path.absolute(), settings)
    if not campaign.settings_file.exists():
        raise ProductError(f"{campaign.folder}: no campaign was started there; `cereals run {file}` starts it")
    return campaign


def show_status(files: Sequence[Path]) -> str:
    """A table for each campaign, and their curves against each other if there are several."""
    campaigns = [open_existing(file) for file in files]
    parts = [_show(campaign) for campaign in campaigns]
    if len(campaigns) > 1:
        series = {each.settings.name: learning_curve(each, evaluated_rounds(each)) for each in campaigns}
        parts += [comparison_table(series), plot(series)]
    return "\n\n".join(parts)


def _show(campaign: Campaign) -> str:
    numbers = evaluated_rounds(campaign)
    lines = [f"{campaign.settings.name}, in {campaign.folder}"]
    if numbers:
        pool = product_of(campaign, "pool", None)
        lines.append(round_table(learning_curve(campaign, numbers), pool.facts["pixels"]))
    rounds = campaign.rounds()
    if rounds:
        lines.append(_progress(rounds[-1], finished_stages(campaign, rounds[-1])))
    if campaign.report_file.exists():
        lines.append(f"report: {campaign.report_file}")
    return "\n".join(lines)


def _progress(number: int, done: list[str]) -> str:
    if done[-1:] == ["report"] and "oracle-query" not in done:
        return f"ended with round {number}"
    missing = [name for name in ROUND_STAGES if name not in done]
    return f"round {number}: done {', '.join(done) or 'nothing yet'}; to come {', '.join(missing) or 'nothing'}"
