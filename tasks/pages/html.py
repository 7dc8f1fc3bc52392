"""The report of a campaign: one HTML file that carries its pictures and needs no other host and no script."""

from collections.abc import Mapping, Sequence

from jinja2 import Environment, PackageLoader, StrictUndefined

from tasks.pages import wording
from tasks.pages.facts import QueryFacts, RoundFacts, query_agreement
from tasks.pages.links import data_uri, web_link

ENVIRONMENT = Environment(
    loader=PackageLoader("tasks", "pages"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
ENVIRONMENT.globals |= {"wording": wording, "data_uri": data_uri, "web_link": web_link}


def campaign_html(rounds: Sequence[RoundFacts], pictures: Sequence[Mapping[str, bytes]], settings: str) -> str:
    """Write the report: the result, the curve, a table of rounds, each round in a fold, and the settings.

    `rounds`: in order, of one campaign; without any the report says so. `pictures`: of each round, PNG files named as
    by `figures.round_pictures`; the curve is shown for the last round only. `settings`: the campaign file's text.
    """
    return ENVIRONMENT.get_template("template.html").render(
        rounds=list(zip(rounds, pictures, strict=True)),
        last=rounds[-1] if rounds else None,
        predicted=_predicted,
        settings=settings,
    )


def _predicted(queries: Sequence[QueryFacts]) -> str:
    agreement = query_agreement(queries)
    return wording.ABSENT if agreement is None else wording.clicks(agreement.predicted)
