from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from round_twin import recompute
from small_campaign import toml_of
from typer.testing import CliRunner

from cereals_core.acquisition_settings import Acquisition
from cereals_core.errors import CerealsError
from cereals_core.settings import CampaignSettings
from deployments.cli import app
from deployments.replay import replay_changes, replay_table
from tasks.replay import Reselection, Variant, replay, variants
from tasks.store.layout import Campaign
from tasks.store.ledger import Row


def of(settings: CampaignSettings, number: int, **values: Any) -> list[Reselection]:
    return list(replay(Campaign(settings.path, settings), number, variants(settings.acquisition, **values)))


def query(image_id: str, y: int, x: int, side: int = 16, clicks: float = 2.0) -> Row:
    box = {"y": y, "x": x, "height": side, "width": side}
    return {"rank": 0, "image_id": image_id, **box, "score": 0.5, "information": 1.0, "predicted_clicks": clicks}


def test_what_changes_is_told_by_hand() -> None:
    asked = [query("a", 0, 0), query("a", 0, 16), query("b", 0, 0)]
    now = [query("a", 0, 16), query("a", 8, 0, clicks=5.0), query("c", 0, 0)]
    made = Reselection(Variant("g2", Acquisition()), now, asked, 0.1)
    assert (made.kept, made.new, made.dropped) == (1, now[1:], [asked[0], asked[2]])
    assert made.shared_pixels == 16 * 16 + 8 * 16
    line = replay_table([made]).splitlines()[2].split()
    assert line == ["g2", "3", "1", "2", "50%", "3", "9", "+50%", "0.10"]
    assert replay_changes(made, most=1).splitlines() == [
        "g2: 2 new, 2 dropped",
        "  + a (y 8, x 0), score 0.5000, 5 predicted clicks",
        "  + and 1 more",
        "  - a (y 0, x 0), score 0.5000, 2 predicted clicks",
        "  - and 1 more",
    ]


def test_combinations_are_named_and_alpha_belongs_to_g3() -> None:
    made = variants(Acquisition(window_px=64), ["g1", "g3"], [0.0, 0.5], [64, 32])
    small = ", window_px 32"
    names = ["g1", f"g1{small}", "g3 alpha 0", "g3 alpha 0.5", f"g3 alpha 0{small}", f"g3 alpha 0.5{small}"]
    assert [variant.name for variant in made] == names
    assert [variant.wanted.alpha for variant in made][2:] == [0.0, 0.5, 0.0, 0.5]
    assert [variant.name for variant in variants(Acquisition())] == ["g1"]


@pytest.mark.parametrize("values", [{"fusions": ["g4"]}, {"windows_px": [12]}, {"alphas": [2.0], "fusions": ["g3"]}])
def test_impossible_variants_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(CerealsError, match="replay of"):
        variants(Acquisition(), **values)


@pytest.mark.parametrize("number", [0, 1])
def test_replay_under_the_same_settings_asks_the_same(finished: CampaignSettings, number: int) -> None:
    (made,) = of(finished, number)
    assert made.queries == made.asked
    assert len(made.queries) == made.kept == 10


def test_every_variant_is_that_of_the_naive_twins(finished: CampaignSettings) -> None:
    for made in of(finished, 1, fusions=["g1", "g2", "g3", "none"], alphas=[0.25, 1.0], windows_px=[16, 32]):
        settings = finished.model_copy(update={"acquisition": made.variant.wanted})
        queries = [(each["image_id"], each["y"], each["x"], each["score"]) for each in made.queries]
        assert queries == recompute(finished.path, settings, 1).queries, made.variant.name


def test_a_budget_in_clicks_is_kept(finished: CampaignSettings) -> None:
    small, large = of(finished, 1, clicks_per_round=[60.0, 120.0])
    for made, budget in ((small, 60.0), (large, 120.0)):
        assert 0 < sum(max(each["predicted_clicks"], 1.0) for each in made.queries) <= budget
    assert small.queries == large.queries[: len(small.queries)]


def test_from_the_command_line(finished: CampaignSettings, tmp_path: Path) -> None:
    file, out = tmp_path / "small.toml", tmp_path / "queries.parquet"
    file.write_text(toml_of(finished))
    result = CliRunner().invoke(app, ["replay", str(file), "1", "--fusion", "g1", "--fusion", "none", "--to", str(out)])
    assert result.exit_code == 0, result.output
    assert [line.split()[0] for line in result.output.splitlines()[:4]] == ["variant", "(as", "g1", "none"]
    assert pq.read_table(out).num_rows == 20


def test_a_round_that_did_not_ask_cannot_be_replayed(finished: CampaignSettings) -> None:
    with pytest.raises(CerealsError, match="round 2 has not asked; rounds 0 to 1 have"):
        of(finished, 2)
