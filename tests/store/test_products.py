import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from made_products import FILES, RECIPE, content, fill, listing, make
from strategies import FEW

from cereals_core.errors import CerealsError
from tasks.store import products
from tasks.store.products import MANIFEST, Recipe, find_product, making, require

OTHERS = {
    "other settings": replace(RECIPE, settings={**RECIPE.settings, "acquisition.window_px": 32}),
    "another type of the same value": replace(RECIPE, settings={**RECIPE.settings, "round": "0"}),
    "no such setting": replace(RECIPE, settings={"round": 0}),
    "other inputs": replace(RECIPE, inputs={**RECIPE.inputs, "pool": "a2"}),
    "inputs exchanged": replace(RECIPE, inputs={"pool": "b2", "fused": "a1"}),
    "an input more": replace(RECIPE, inputs={**RECIPE.inputs, "cost": "c3"}),
    "another version": replace(RECIPE, version=2),
    "another stage": replace(RECIPE, stage="oracle-query"),
}


def test_a_product_is_its_files_and_a_manifest(tmp_path: Path) -> None:
    folder = tmp_path / "rounds" / "000" / "nms"
    made = make(folder, proposals=3)
    assert content(folder).keys() == {"table", "maps/c/0", MANIFEST}
    assert made / "table" == folder / "table"
    assert (made.stage, made.inputs, made.facts, made.total_bytes) == ("nms", RECIPE.inputs, {"proposals": 3}, 164)
    assert listing(folder.parent) == ["nms"]
    assert find_product(folder) == find_product(folder, RECIPE) == made
    manifest = json.loads((folder / MANIFEST).read_text())
    assert manifest["files"]["maps/c/0"] == [64, "f5a5fd42d16a20302798ef6ed309979b43003d2320d9f0e8ea9831a92759fb4b"]


def test_nothing_there_is_no_product_and_the_error_says_what_to_run(tmp_path: Path) -> None:
    assert find_product(tmp_path / "nms") is None
    with pytest.raises(RuntimeError, match=r"nms: no valid product is there; `cereals run` .* makes it") as got:
        require(None, tmp_path / "nms")
    assert isinstance(got.value, CerealsError)


@pytest.mark.parametrize("other", OTHERS.values(), ids=OTHERS.keys())
def test_a_product_of_another_recipe_is_not_taken(tmp_path: Path, other: Recipe) -> None:
    made = make(tmp_path / "nms")
    assert find_product(tmp_path / "nms", other) is None
    assert find_product(tmp_path / "nms") == made


def test_the_order_of_settings_and_inputs_does_not_matter() -> None:
    turned = Recipe("nms", 1, {"round": 0, "acquisition.window_px": 24}, {"fused": "b2", "pool": "a1"})
    assert turned.fingerprint == RECIPE.fingerprint


def clock(*ticks: float) -> SimpleNamespace:
    values = iter(ticks)
    return SimpleNamespace(monotonic=lambda: next(values), strftime=lambda *_: f"at {ticks}", gmtime=lambda: None)


def test_the_digest_tells_files_apart_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products, "time", clock(0, 1))
    first = make(tmp_path / "a")
    monkeypatch.setattr(products, "time", clock(5, 500))
    second = make(tmp_path / "b", OTHERS["another version"], note="other facts")
    assert (first.elapsed_s, second.elapsed_s) == (1, 495)
    assert (tmp_path / "a" / MANIFEST).read_bytes() != (tmp_path / "b" / MANIFEST).read_bytes()
    assert first.digest == second.digest
    monkeypatch.undo()
    for files in ({**FILES, "table": b"?"}, {"tables": FILES["table"], "maps/c/0": FILES["maps/c/0"]}, {}):
        assert make(tmp_path / "c", RECIPE, files).digest != first.digest


def rewrite(file: Path, change: Callable[[bytes], bytes]) -> None:
    file.write_bytes(change(file.read_bytes()))


def put_a_folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


def edit_manifest(**changes: object) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        manifest = json.loads((folder / MANIFEST).read_text())
        (folder / MANIFEST).write_text(json.dumps({**manifest, **changes}))

    return edit


def edit_recipe(**changes: object) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        recipe = json.loads((folder / MANIFEST).read_text())["recipe"]
        edit_manifest(recipe={**recipe, **changes})(folder)

    return edit


DAMAGE: dict[str, Callable[[Path], object]] = {
    "a missing file": lambda folder: (folder / "table").unlink(),
    "a missing folder": lambda folder: shutil.rmtree(folder / "maps"),
    "a truncated file": lambda folder: rewrite(folder / "table", lambda found: found[:-1]),
    "a longer file": lambda folder: rewrite(folder / "table", lambda found: found + b"\0"),
    "a flipped byte": lambda folder: rewrite(folder / "maps/c/0", lambda found: b"\1" + found[1:]),
    "a folder in a file's place": lambda folder: put_a_folder(folder / "table"),
    "no manifest": lambda folder: (folder / MANIFEST).unlink(),
    "an empty manifest": lambda folder: (folder / MANIFEST).write_bytes(b""),
    "a truncated manifest": lambda folder: rewrite(folder / MANIFEST, lambda found: found[:-2]),
    "a manifest that is no text": lambda folder: rewrite(folder / MANIFEST, lambda found: b"\xff" + found),
    "another digest": edit_manifest(digest="0" * 64),
    "another fingerprint": edit_manifest(fingerprint=OTHERS["other settings"].fingerprint),
    "other facts": edit_manifest(facts={"miou": 1}),
    "another time": edit_manifest(elapsed_s=0),
    "no checksum": edit_manifest(checksum=None),
    "no files": edit_manifest(files={}),
    "files that are no table": edit_manifest(files=[]),
    "facts gone": lambda folder: rewrite(folder / MANIFEST, lambda found: found.replace(b'"facts"', b'"fact"')),
    "a recipe edited in its version": edit_recipe(version=2),
    "a recipe edited in its inputs": edit_recipe(inputs={}),
    "a recipe edited in its settings": edit_recipe(settings={"round": 1}),
    "a recipe with a key more": edit_recipe(more=1),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE.keys())
def test_damage_is_noticed_and_mended_by_making_it_again(tmp_path: Path, damage: Callable[[Path], object]) -> None:
    folder = tmp_path / "nms"
    made = make(folder)
    damage(folder)
    assert find_product(folder, RECIPE) is None
    assert find_product(folder) is None
    assert make(folder).digest == made.digest
    assert listing(tmp_path) == ["nms"]
    assert content(folder).keys() == {*FILES, MANIFEST}


@given(st.sampled_from([*FILES, MANIFEST]), st.integers(0, 2**16), st.integers(0, 7))
def test_every_flipped_bit_of_every_file_is_noticed(
    tmp_path_factory: pytest.TempPathFactory, name: str, position: int, bit: int
) -> None:
    folder = tmp_path_factory.mktemp("flip") / "nms"
    made = make(folder)
    damaged = bytearray((folder / name).read_bytes())
    damaged[position % len(damaged)] ^= 1 << bit
    (folder / name).write_bytes(damaged)
    found = find_product(folder, RECIPE)
    if found is not None:  # the flip hit the manifest's white space, and made other white space of it
        assert name == MANIFEST
        assert found == made


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


@FEW
@given(
    json_values
    | st.fixed_dictionaries(
        dict.fromkeys(("digest", "fingerprint", "elapsed_s", "facts"), json_values)
        | {
            "files": json_values | st.dictionaries(st.text(), json_values, max_size=2),
            "recipe": json_values | st.fixed_dictionaries(dict.fromkeys(vars(RECIPE), json_values)),
        }
    )
)
@example([])
@example({"recipe": vars(RECIPE), "digest": "", "fingerprint": "", "elapsed_s": 1, "facts": {}, "files": []})
def test_any_other_json_is_no_manifest(tmp_path_factory: pytest.TempPathFactory, manifest: Any) -> None:
    folder = tmp_path_factory.mktemp("json")
    (folder / MANIFEST).write_text(json.dumps(manifest))
    assert find_product(folder) is None


def test_of_a_large_product_the_sizes_and_the_small_files_are_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(products, "HASHED_ON_OPEN_BYTES", 163)
    monkeypatch.setattr(products, "SMALL_FILE_BYTES", 64)
    folder = tmp_path / "info-map"
    make(folder)
    rewrite(folder / "table", lambda found: b"?" + found[1:])
    assert find_product(folder, RECIPE) is not None
    rewrite(folder / "table", lambda found: found[1:])
    assert find_product(folder, RECIPE) is None
    make(folder)
    rewrite(folder / "maps/c/0", lambda found: b"?" + found[1:])
    assert find_product(folder, RECIPE) is None


def fail(folder: Path, recipe: Recipe, files: dict[str, bytes]) -> tuple[Path, dict[str, bytes]]:
    """An attempt that writes files and fails; returns the working folder, and what was in it at first."""
    try:
        with making(folder, recipe) as (work, _):
            found = content(work)
            fill(work, files)
            raise ZeroDivisionError
    except ZeroDivisionError:
        return work, found


def test_a_failing_block_leaves_no_product_and_the_next_attempt_goes_on(tmp_path: Path) -> None:
    folder, kept = tmp_path / "nms", {"maps/c/0": FILES["maps/c/0"]}
    left, _ = fail(folder, RECIPE, {**kept, ".table.new": b"half", "maps/c/1.0f.partial": b"half"})
    assert listing(tmp_path) == [left.name] == [f".nms.{RECIPE.fingerprint[:16]}"]
    assert find_product(folder, RECIPE) is None
    with making(folder, RECIPE) as (work, _):
        assert work == left
        assert content(work).items() > kept.items()
        fill(work, {"table": FILES["table"], "maps/.scales.new": b"half"})
    assert content(folder).keys() == {*FILES, MANIFEST}
    assert listing(tmp_path) == ["nms"]
    assert find_product(folder, RECIPE) is not None


def test_what_another_recipe_left_is_removed_and_what_other_stages_left_is_not(tmp_path: Path) -> None:
    other_stage = tmp_path / ".nms-map.0123"
    other_stage.mkdir()
    for recipe in (RECIPE, OTHERS["other inputs"], RECIPE):
        work, found = fail(tmp_path / "nms", recipe, FILES)
        assert found == {}
        assert listing(tmp_path) == [other_stage.name, work.name]


def test_an_old_product_stays_until_the_new_one_replaces_it(tmp_path: Path) -> None:
    folder, newer = tmp_path / "nms", OTHERS["other inputs"]
    old = make(folder, RECIPE, {"table": b"old", "gone": b""})
    with making(folder, newer) as (work, _):
        assert find_product(folder, RECIPE) == old
        fill(work, {"table": b"new"})
    assert find_product(folder, RECIPE) is None
    assert find_product(folder, newer) is not None
    assert content(folder).keys() == {"table", MANIFEST}
    assert listing(tmp_path) == ["nms"]


def test_facts_that_are_no_json_leave_no_product(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="not JSON serializable"):
        make(tmp_path / "nms", when=object())
    assert find_product(tmp_path / "nms") is None
