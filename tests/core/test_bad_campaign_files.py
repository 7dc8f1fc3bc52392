"""Campaign files that are none, and values that no campaign can have: one short error each, and no waiting."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from cereals_core.errors import SettingsError
from cereals_core.settings_files import parse_settings, read_either, read_settings, read_study

GOOD = {
    "name": "made",
    "data": {"format": "synthetic", "pool_images": 6, "eval_images": 2, "height": 48, "width": 64},
}
COCO = {"format": "coco", "root": "somewhere"}
MASKS = {"format": "masks", "root": "somewhere", "class_names": ["a", "b"]}
TOML = 'name = "made"\n[data]\nformat = "synthetic"\npool_images = 6\neval_images = 2\nheight = 48\nwidth = 64\n'


def loop(file: Path) -> None:
    file.symlink_to(file)


FILES: dict[str, Callable[[Path], object]] = {
    "a folder": lambda file: file.mkdir(),
    "a loop": loop,
    "a pipe": lambda file: os.mkfifo(file),
    "no text": lambda file: file.write_bytes(bytes(range(256))),
    "no TOML": lambda file: file.write_text("name: made"),
    "empty": lambda file: file.write_text(""),
    "nested deep": lambda file: file.write_text("a = " + "[" * 5000 + "]" * 5000),
    "deep tables": lambda file: file.write_text("a." * 5000 + "b = 1"),
    "long integer": lambda file: file.write_text(TOML + "seed = " + "7" * 5000),
    "large": lambda file: file.write_text("# " + "x" * (2 << 20)),
    "UTF-16": lambda file: file.write_text(TOML, "utf-16"),
    "long value": lambda file: file.write_text(TOML.replace("made", "x" * 100_000)),
    "long key": lambda file: file.write_text("k" * 100_000 + " = 1\n" + TOML),
    "many keys": lambda file: file.write_text("".join(f"k{number} = 1\n" for number in range(9000)) + TOML),
    "a date": lambda file: file.write_text(TOML.replace('"made"', "2026-01-01")),
}


@pytest.mark.parametrize("kind", FILES)
@pytest.mark.parametrize("read", [read_settings, read_study, read_either])
def test_files_that_are_no_campaign(kind: str, read: Callable[[Path], object], tmp_path: Path) -> None:
    file = tmp_path / "made.toml"
    FILES[kind](file)
    with pytest.raises(SettingsError, match=r"made\.toml: ") as told:
        read(file)
    assert len(str(told.value)) < 20_000
    assert max(map(len, str(told.value).splitlines())) < 1000


@pytest.mark.parametrize("name", ["x" * 5000, "nowhere.toml", "nowhere/at/all.toml"])
def test_paths_that_lead_nowhere(name: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError) as told:
        read_settings(tmp_path / name)
    assert len(str(told.value)) < 1000


def test_a_byte_order_mark_is_read_over(tmp_path: Path) -> None:
    file = tmp_path / "made.toml"
    file.write_text(TOML, "utf-8-sig")
    assert read_settings(file).name == "made"


NUMBERS = [
    *("seed", "data.seed", "data.pool_images", "data.eval_images", "data.height", "data.width", "model.width"),
    *("model.dropout", "training.learning_rate", "training.patience_epochs", "training.batch_images"),
    *("training.max_steps", "acquisition.images_per_round", "acquisition.clicks_per_round", "acquisition.window_px"),
    *("acquisition.dropout_samples", "acquisition.alpha", "acquisition.batch_images", "acquisition.seed_images"),
    *("stop.rounds", "stop.clicks", "stop.target_miou", "stop.converged_rounds", "stop.min_gain"),
    *("compute.threads", "compute.shard_images"),
]


def changed(key: str, value: object, data: dict[str, object] | None = None) -> dict[str, object]:
    """Settings with one value more."""
    section, _, name = key.rpartition(".")
    made: dict[str, object] = {**GOOD, "data": {**(data or GOOD["data"])}}  # type: ignore[dict-item]
    part = made.setdefault(section, {}) if section else made
    assert isinstance(part, dict)
    part[name] = value
    return made


def assert_refused(raw: dict[str, object], key: str) -> None:
    with pytest.raises(SettingsError, match=rf"made: \d+ mistakes?; correct and run again\n(.*\n)*  {key} = ") as told:
        parse_settings(raw, "made")
    assert len(str(told.value)) < 3000


@pytest.mark.parametrize("key", NUMBERS)
@pytest.mark.parametrize(
    "value",
    [float("inf"), float("-inf"), float("nan"), True, "3", "x" * 100_000, -1, [], [1]],
    ids=["inf", "-inf", "nan", "true", "text", "long text", "negative", "none", "list"],
)
def test_numbers_are_numbers(key: str, value: object) -> None:
    assert_refused(changed(key, value), key)


@pytest.mark.parametrize(
    ("key", "value", "data"),
    [
        ("data.scale", float("inf"), COCO),
        ("data.scale", True, COCO),
        ("data.scale", 2.0, COCO),
        ("data.most_images", 0, COCO),
        ("data.root", 7, COCO),
        ("data.root", "a\0b", COCO),
        ("data.pool_split", "a\0b", COCO),
        ("model.weights", "a\0b", None),
        ("folder", "a\0b", None),
        ("data.background", 7, COCO),
        ("data.contour_epsilon_px", float("nan"), MASKS),
        ("data.clicks_per_vertex", 1e300, MASKS),
        ("data.speck_px", 1.5, MASKS),
        ("data.class_names", "road", MASKS),
        ("data.class_names", ["a"], MASKS),
        ("training.betas", 0.9, None),
    ],
)
def test_other_values(key: str, value: object, data: dict[str, object] | None) -> None:
    assert_refused(changed(key, value, data), key)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("compute.threads", 2**40),
        ("data.pool_images", 10**12),
        ("data.eval_images", 10**12),
        ("data.height", 10**9),
        ("data.width", 10**9),
        ("stop.rounds", 10**12),
        ("seed", 2**53),
        ("data.seed", 2**60),
    ],
)
def test_what_no_machine_holds_is_refused(key: str, value: int) -> None:
    assert_refused(changed(key, value), key)


@pytest.mark.parametrize("key", ["seed", "data.pool_images", "acquisition.seed_images", "stop.rounds"])
def test_whole_numbers_are_whole(key: str) -> None:
    assert_refused(changed(key, 2.5), key)
