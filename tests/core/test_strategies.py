import re

import pytest
from checkout import ROOT

from cereals_core.acquisition_settings import Acquisition
from cereals_core.strategies import STRATEGIES

PAGE = ROOT / "docs" / "strategies.md"


def test_the_page_has_a_line_for_every_strategy_with_its_definition_and_source() -> None:
    rows = re.findall(r"^\| `([a-z0-9-]+)` \| ([^|]+) \| ([^|]+) \|$", PAGE.read_text(), flags=re.MULTILINE)
    listed = {name: (definition, source) for name, definition, source in rows if name in STRATEGIES}
    assert listed == {name: (each.definition, each.source) for name, each in STRATEGIES.items()}


@pytest.mark.parametrize("name", STRATEGIES)
def test_a_strategy_is_its_four_keys(name: str) -> None:
    by_name, parts = Acquisition.model_validate({"strategy": name}), STRATEGIES[name]._asdict()
    keys = {key: parts[key] for key in ("unit", "information", "cost", "fusion")}
    assert by_name.model_dump(include=set(keys)) == keys
    one_by_one = Acquisition.model_validate(keys)
    assert one_by_one == by_name.model_copy(update={"strategy": None})


def test_no_two_strategies_are_the_same() -> None:
    assert len({strategy[:4] for strategy in STRATEGIES.values()}) == len(STRATEGIES)


def test_only_the_upper_bound_sees_true_costs() -> None:
    assert [name for name, strategy in STRATEGIES.items() if strategy.cost == "true"] == ["cereals-true-cost"]


def test_a_budget_in_clicks_lets_a_strategy_without_cost_learn_one() -> None:
    wanted = Acquisition.model_validate({"strategy": "random-regions", "clicks_per_round": 50})
    assert (wanted.cost, wanted.fusion) == ("learned", "none")
