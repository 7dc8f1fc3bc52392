from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cereals_core.errors import CerealsError, SettingsError
from cereals_core.settings import changes_between
from cereals_core.settings_files import parse_settings, read_settings

SMALLEST: dict[str, Any] = {
    "name": "street",
    "data": {"format": "synthetic", "pool_images": 4, "eval_images": 2, "height": 64, "width": 96},
}
ON_DISK: dict[str, Any] = {"name": "street", "data": {"format": "cityscapes", "root": "data/cityscapes"}}


def changed(raw: dict[str, Any], **values: object) -> dict[str, Any]:
    """`raw` with settings replaced, named by `section__key`."""
    raw = deepcopy(raw)
    for name, value in values.items():
        *sections, key = name.split("__")
        place = raw
        for section in sections:
            place = place.setdefault(section, {})
        place[key] = value
    return raw


def mistakes(**values: object) -> list[str]:
    """Lines of the error that `SMALLEST` with `values` gives."""
    with pytest.raises(SettingsError) as got:
        parse_settings(changed(SMALLEST, **values), "street.toml")
    return str(got.value).splitlines()


def differences(raw: dict[str, Any], **values: object) -> list[str]:
    return changes_between(parse_settings(raw, "old"), parse_settings(changed(raw, **values), "new"))


def test_the_smallest_campaign_file(tmp_path: Path) -> None:
    file = tmp_path / "street.toml"
    file.write_text(
        'name = "street"\n[data]\nformat = "synthetic"\npool_images = 4\neval_images = 2\nheight = 64\nwidth = 96\n'
    )
    settings = read_settings(file)
    assert settings == parse_settings(SMALLEST, "street.toml")
    assert settings.path == Path("campaigns/street").absolute()
    assert settings.acquisition.window_px == 128


def test_a_folder_of_ones_own() -> None:
    assert parse_settings(changed(SMALLEST, folder="/scratch/a"), "x").path == Path("/scratch/a")


def test_a_missing_or_broken_file_is_named_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"none\.toml: no such campaign file; recipes to start from"):
        read_settings(tmp_path / "none.toml")
    broken = tmp_path / "broken.toml"
    broken.write_bytes(b"name = street\xff")
    with pytest.raises(CerealsError, match=r"broken\.toml: not valid TOML: .*correct the file"):
        read_settings(broken)


def test_all_mistakes_come_at_once_with_key_value_and_what_is_allowed() -> None:
    lines = mistakes(
        name="Street View",
        data__height=8,
        model__name="unet",
        model__width=2,
        training__patience=3,
        acquisition__dropout_samples=256,
        rounds=3,
    )
    assert lines[0] == "street.toml: 7 mistakes; correct and run again"
    found = "\n".join(sorted(lines[1:]))
    assert "  acquisition.dropout_samples = 256: Input should be less than or equal to 255" in found
    assert "  data.height = 8: Input should be greater than 31" in found
    assert "  model.name = 'unet': no such network; there are fcn8s, " in found
    assert "  model.width = 2: Input should be less than or equal to 1" in found
    assert "  name = 'Street View': String should match pattern" in found
    assert "  rounds: no such key; allowed here: acquisition, compute, data, folder, model, name, seed" in found
    assert "  training.patience: no such key; allowed here: augment, batch, batch_images, batch_windows, " in found


def test_an_unknown_key_of_the_data_is_shown_beside_those_of_its_format() -> None:
    assert mistakes(data__root="x")[1:] == [
        "  data.root: no such key; allowed here: eval_images, format, height, pool_images, seed, width"
    ]


def test_a_missing_key_and_an_unknown_format_are_named() -> None:
    raw = deepcopy(SMALLEST)
    del raw["data"]["pool_images"], raw["name"]
    with pytest.raises(SettingsError, match=r"2 mistakes(.|\n)*  name: missing(.|\n)*  data\.pool_images: missing"):
        parse_settings(raw, "x")
    assert "'coco', 'masks', 'cityscapes', 'synthetic'" in mistakes(data__format="voc")[1]


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"window_px": 100}, "window_px = 100: must be a multiple of 8"),
        ({"cost": "none"}, 'fusion = "g1" needs a cost'),
        ({"information": "random"}, 'information = "random" is not fused'),
        ({"cost": "none", "fusion": "none", "clicks_per_round": 10}, "clicks_per_round = 10.0 needs a cost"),
        ({"strategy": "cereals", "fusion": "g2"}, 'strategy = "cereals" means fusion = "g1", not "g2"'),
    ],
)
def test_settings_that_do_not_go_together_are_refused(values: dict[str, object], problem: str) -> None:
    assert problem in mistakes(acquisition=values)[1]


def test_a_strategy_hides_no_other_mistake() -> None:
    told = mistakes(acquisition={"strategy": "cereals", "fusion": "g2", "seed_images": "some"})
    assert any("acquisition.seed_images = 'some'" in line for line in told)
    assert any("acquisition.strategy = ['cereals']" in line for line in mistakes(acquisition={"strategy": ["cereals"]}))


def test_settings_are_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        parse_settings(SMALLEST, "x").seed = 3


def test_changes_are_shown_old_to_new() -> None:
    assert differences(SMALLEST, seed=3, acquisition__window_px=64, data__seed=1) == [
        "acquisition.window_px: 128 -> 64",
        "data.seed: 0 -> 1",
        "seed: 0 -> 3",
    ]
    assert differences(SMALLEST, model__precision="bfloat16") == ["model.precision: float32 -> bfloat16"]


def test_another_format_shows_the_keys_that_come_and_go() -> None:
    lines = changes_between(parse_settings(SMALLEST, "old"), parse_settings(ON_DISK, "new"))
    assert "data.format: synthetic -> cityscapes" in lines
    assert "data.height: 64 -> (absent)" in lines
    assert "data.pool_split: (absent) -> train" in lines


def test_where_things_are_how_they_are_computed_and_when_to_stop_may_change() -> None:
    assert not differences(
        ON_DISK,
        data__root="/elsewhere",
        folder="/scratch/b",
        stop__rounds=99,
        stop__target_miou=0.5,
        compute__device="cpu",
        compute__threads=3,
        compute__shard_images=8,
    )


@given(st.integers(0, 2**53 - 1), st.integers(1, 64), st.sampled_from(["g1", "g2", "g3", "none"]))
def test_settings_survive_json_and_show_no_change_against_themselves(seed: int, cells: int, fusion: str) -> None:
    raw = changed(SMALLEST, seed=seed, acquisition__window_px=8 * cells, acquisition__fusion=fusion)
    settings = parse_settings(raw, "x")
    again = parse_settings(settings.model_dump(mode="json"), "again")
    assert again == settings
    assert changes_between(settings, again) == []


FROZEN = {"model__name": "timm:tf_efficientnet_lite0", "model__weights": "download", "model__trunk": "frozen"}


def test_a_recipe_sets_keys_by_the_trunk_and_any_may_be_given_beside_it() -> None:
    paper = parse_settings(SMALLEST, "x").training
    assert (paper.recipe, paper.batch, paper.steps, paper.weight_decay, paper.augment) == (
        "paper",
        "images",
        None,
        0,
        (),
    )
    frozen = parse_settings(changed(SMALLEST, **FROZEN, training__recipe="practical"), "x").training
    assert (frozen.batch, frozen.window_px, frozen.steps, frozen.decay) == ("windows", 32, 800, "poly")
    assert frozen.augment == ("flip",)
    trained = parse_settings(changed(SMALLEST, training__recipe="practical", training__steps=9), "x").training
    assert (trained.batch, trained.batch_images, trained.steps) == ("images", 4, 9)
    again = parse_settings(parse_settings(changed(SMALLEST, training__recipe="practical"), "x").model_dump(), "x")
    assert again.training.steps == 800


def test_a_recipes_name_is_no_change_where_its_keys_are_the_same() -> None:
    practical = changed(SMALLEST, training__recipe="practical")
    spelt_out = parse_settings(practical, "x").training.model_dump(mode="json", exclude={"recipe"})
    assert (
        changes_between(parse_settings(practical, "x"), parse_settings({**SMALLEST, "training": spelt_out}, "x")) == []
    )
    assert differences(practical, training__steps=5) == ["training.steps: 800 -> 5"]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"model__trunk": "frozen"}, 'trunk = "frozen" needs an encoder apart, which "fcn8s" lacks; take timm:ENCODER'),
        ({**FROZEN, "model__weights": None}, 'trunk = "frozen" needs pretrained weights'),
        ({"model__name": FROZEN["model__name"], "model__feature_channels": 96}, 'is for trunk = "frozen"'),
        ({"training__decay": "poly"}, 'decay = "poly" needs the number of steps'),
        ({"training__augment": ["scale"]}, 'augment = "scale" is for windows'),
        ({"training__batch": "windows", "training__method": "cropping"}, 'method = "cropping" is for images'),
        ({"training__window_px": 48}, "multiple of 32"),
        ({"model__name": "fcn_resnet50", "training__batch": "windows"}, "set training.context_px = 32"),
        ({**FROZEN, "training__method": "cropping"}, "needs a finite receptive field"),
    ],
)
def test_what_does_not_go_together_is_said_with_what_does(values: dict[str, Any], message: str) -> None:
    assert message in "\n".join(mistakes(**values))
