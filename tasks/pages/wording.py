"""Facts in plain words: numbers with their units, and the sentences that open a page."""

import math
import re
from collections.abc import Sequence

from cereals_core.evaluation import cost_agreement
from tasks.pages.facts import CostSample, QueryFacts, RoundFacts, query_agreement

ABSENT = "-"
"""The sign of a missing number."""
UPPER_BOUND = "An upper bound, not a strategy: queries are chosen by the true clicks of the pool, unknown in practice."
"""The sentence on every campaign with `cost = "true"`, wherever its numbers are."""
AGREEMENT_NOTE = (
    "Queried is what this round asked for; random is drawn from the evaluation split, the same in every round. "
    "Baselines know the labels before the round: constant goes by pixels, edges by gradients in the image."
)
"""The note on the table of `agreement_rows`; bias and error are in clicks a region."""
AGREEMENT_HEADER = ("sample", "predicted by", "number", "rank correlation", "bias", "mean absolute error", "sum ratio")
WORDS = {
    "mIoU": "intersection over union of prediction and truth, mean over classes, on images kept for evaluation.",
    "Click": "one vertex of a polygon that an annotator draws; what labels cost.",
    "Pool": "the images that may be asked for. Round 0 knows only those of the seed set, labelled in full.",
    "Information": "how unsure the network is of a cell of 8 x 8 px; more of it teaches more.",
    "Score": "by which regions are ranked: information, fused with predicted clicks where cost counts.",
    "Peak memory": "the most that the process held during the stage, libraries included.",
}
"""The words of a round's page with their meanings."""
PREDICTOR_NAMES = {"learned": "cost model", "constant": "constant", "edges": "edges"}


def number(value: float, digits: int = 3) -> str:
    """Write a number with `digits` decimals: `0.412`; a dash for NaN."""
    return f"{value:.{digits}f}" if math.isfinite(value) else ABSENT


def signed(value: float, digits: int = 3) -> str:
    """Write a number with its sign and `digits` decimals: `+0.021`, `-0.003`; a dash for NaN."""
    return f"{value:+.{digits}f}" if math.isfinite(value) else ABSENT


def clicks(value: float) -> str:
    """Write clicks to one decimal, since a traced vertex may count half: `1,234`, `12.5`; a dash for NaN."""
    return f"{value:,.1f}".removesuffix(".0") if math.isfinite(value) else ABSENT


def share(part: float, whole: float) -> str:
    """Write a part as a share of the whole: `4.1 %`; a dash if the whole is 0."""
    return f"{100 * part / whole:.1f} %" if whole else ABSENT


def duration(seconds: float) -> str:
    """Write a duration: `4.2 s`, `3 min 05 s` or `2 h 05 min`."""
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def size(count: int) -> str:
    """Write bytes in decimal units: `12 B`, `3.4 kB`, `5.6 MB`."""
    if count < 1000:
        return f"{count} B"
    power = min(int(math.log10(count)) // 3, 4)
    return f"{count / 1000**power:.1f} {' kMGT'[power]}B"


def plural(count: int, word: str) -> str:
    """Write a count with its noun: `1 region`, `1,200 regions`."""
    return f"{count:,} {word}" + ("" if count == 1 else "s")


def gained(facts: RoundFacts) -> str:
    """Tell the change of the mIoU: `, up 0.021 on round 2`; empty in the first round or where a mIoU is missing."""
    if not math.isfinite(facts.gain):
        return ""
    before = facts.points[-2].round
    if round(facts.gain, 3) == 0:
        return f", as in round {before}"
    return f", {'up' if facts.gain > 0 else 'down'} {abs(facts.gain):.3f} on round {before}"


def campaign_title(campaign: str, upper_bound: bool) -> str:
    """Return a campaign's name, marked if it is an upper bound: `demo (upper bound)`."""
    return f"{campaign} (upper bound)" if upper_bound else campaign


def stage_title(campaign: str, round_number: int | None, stage: str) -> str:
    """Name a stage of a campaign: `demo round 2 train-seg`, or `demo start pool` before the first round."""
    return f"{campaign} {'start' if round_number is None else f'round {round_number}'} {stage}"


def round_title(facts: RoundFacts) -> str:
    """Name a round of a campaign, an upper bound marked: `demo, round 2 of 10`."""
    of = "" if facts.rounds is None else f" of {facts.rounds}"
    return f"{campaign_title(facts.campaign, facts.upper_bound)}, round {facts.point.round}{of}"


def description(facts: RoundFacts) -> str:
    """Describe a round in one line of a list of pages: `demo, round 2 of 10: mIoU 0.412, 1,234 clicks so far`."""
    return f"{round_title(facts)}: mIoU {number(facts.point.miou)}, {clicks(facts.clicks_so_far)} clicks so far"


def describes(text: str | None, facts: RoundFacts, round_number: int) -> bool:
    """Tell whether `text` is what `description` says of round `round_number` of the same campaign."""
    title = f"{campaign_title(facts.campaign, facts.upper_bound)}, round {round_number}"
    return re.match(rf"{re.escape(title)}\b", text or "") is not None


def headline(facts: RoundFacts) -> str:
    """Tell what happened in the round: trained on what, the mIoU now, what was asked and what it cost."""
    return " ".join(sentences(facts))


def sentences(facts: RoundFacts) -> list[str]:
    """Return the sentences of the headline."""
    point = facts.point
    trained = (
        f"Trained on {clicks(point.clicks)} clicks ({share(point.pixels, facts.pool_pixels)} of the pool's pixels, "
        f"{facts.images_touched:,} of {plural(facts.pool_images, 'image')}){_trained_for(facts)}, "
        f"the model reaches mIoU {number(point.miou)}{gained(facts)}."
    )
    bound = UPPER_BOUND if facts.upper_bound else ""
    return [each for each in (trained, _asked(facts), _stopped(facts), in_both(facts.images_in_both), bound) if each]


def _trained_for(facts: RoundFacts) -> str:
    if not facts.steps:
        return ""
    cut = ", cut by training.max_steps before it had converged" if facts.was_cut else ""
    return f" in {plural(facts.steps, 'step')} ({plural(facts.epochs, 'epoch')}{cut})"


def in_both(images: int) -> str:
    """Warn of images that are in both splits; empty if there are none."""
    those = "1 image for evaluation is" if images == 1 else f"{images:,} images for evaluation are"
    return f"{those} in the pool too: the mIoU tells too much." if images else ""


def _asked(facts: RoundFacts) -> str:
    if not facts.queries:
        return ""
    images = len({query.image_id for query in facts.queries})
    budget = "" if facts.budget_clicks is None else f" of a budget of {clicks(facts.budget_clicks)}"
    on_images = f" on {plural(images, 'image')}" if facts.unit == "region" else ""
    return (
        f"It asked for {plural(len(facts.queries), facts.unit)}{on_images}, which cost "
        f"{clicks(facts.asked_clicks)} clicks: {clicks(facts.clicks_so_far)} so far{budget}."
    )


def _stopped(facts: RoundFacts) -> str:
    return "" if facts.stop_reason is None else f"The campaign ends here: {facts.stop_reason}."


def choice_sentence(facts: RoundFacts, shown: int) -> str:
    """Tell by what the round chose, and how many of its queries the page shows."""
    best = f"The first {'' if shown == 1 else f'{shown} '}of {plural(len(facts.queries), facts.unit)}"
    teaches = any(math.isfinite(query.information) for query in facts.queries)
    costs = facts.upper_bound or any(math.isfinite(query.predicted_clicks) for query in facts.queries)
    one = f"{'an' if facts.unit == 'image' else 'a'} {facts.unit}"
    if not teaches:
        return f"{best}, drawn at random."
    against = ", against what it would cost" if costs else ""
    return f"{best}, best first: what {one} would teach the network{against}."


def cost_sentence(facts: RoundFacts) -> str:
    """Compare the predicted clicks of a round with the true ones."""
    agreement = query_agreement(facts.queries)
    if agreement is None:
        return "No clicks were predicted in this round."
    text = (
        f"Predicted {clicks(agreement.predicted)} clicks for {plural(agreement.regions, facts.unit)}, "
        f"true {clicks(agreement.true)}; mean absolute error {clicks(agreement.mean_absolute_error)} clicks "
        f"{'an' if facts.unit == 'image' else 'a'} {facts.unit}"
    )
    text += f", rank correlation {agreement.spearman:.2f}." if math.isfinite(agreement.spearman) else "."
    if facts.correction is not None:
        text += (
            f" In the rounds before, {facts.correction:.2f} true clicks came for each one predicted; a budget in "
            "clicks counts predictions times that."
        )
    return text


def agreement_rows(samples: Sequence[CostSample]) -> list[list[str]]:
    """Compare the cost model and both baselines with the true clicks, a row each under AGREEMENT_HEADER."""
    agreements = [
        (sample.name, PREDICTOR_NAMES[predictor], cost_agreement(predicted, sample.true))
        for sample in samples
        for predictor, predicted in sample.predicted.items()
    ]
    return [
        [
            *(sample, predictor, f"{found.regions:,}", number(found.spearman, 2)),
            *(signed(found.bias, 1), number(found.mean_absolute_error, 1), number(found.sum_ratio, 2)),
        ]
        for sample, predictor, found in agreements
    ]


def true_costs(queries: Sequence[QueryFacts]) -> list[tuple[str, str]]:
    """Return the three counts of a round's true clicks, each with its name: c_p, c_p + c_i, c_p + c_i + c_c."""
    vertices = sum(query.vertices for query in queries)
    crossings = sum(query.crossings for query in queries)
    components = sum(query.components for query in queries)
    return [
        ("vertices inside (c_p)", clicks(vertices)),
        ("+ crossings of the border (c_p + c_i)", clicks(vertices + crossings)),
        ("+ class clicks (c_p + c_i + c_c)", clicks(vertices + crossings + components)),
    ]


def place_of(query: QueryFacts) -> str:
    """Write the place and size of a query in its image: `y 120, x 240, 128 x 128 px`."""
    box = query.box
    return f"y {box.y}, x {box.x}, {box.height} x {box.width} px"


def clicks_of(query: QueryFacts) -> str:
    """Write the clicks of a query: `predicted 12.5 clicks, true 14`, or the true ones alone."""
    if math.isfinite(query.predicted_clicks):
        return f"predicted {clicks(query.predicted_clicks)} clicks, true {clicks(query.vertices)}"
    return f"true {clicks(query.vertices)} clicks"


def caption(facts: RoundFacts, name: str) -> str:
    """Tell what the picture `name` of a round shows, for alternative texts; names as by `figures.round_pictures`."""
    if name == "curve":
        return f"mIoU against clicks and labelled pixels up to round {facts.point.round}"
    if name == "cost":
        return f"Predicted against true clicks of the {facts.unit}s of round {facts.point.round}"
    if name == "calibration":
        return f"Mean predicted against mean true clicks, in groups by prediction, of round {facts.point.round}"
    query = facts.queries[int(name.removeprefix("region-")) - 1]
    shown = f"{facts.unit.capitalize()} {name.removeprefix('region-')}"
    return f"{shown}: {query.image_id}, {place_of(query)}; {clicks_of(query)}"
