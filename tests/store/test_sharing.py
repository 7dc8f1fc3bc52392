import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
from made_products import RECIPE, content, listing, make

from cereals_core.settings import CampaignSettings
from tasks.running.opening import writing
from tasks.store import sharing
from tasks.store.layout import Study
from tasks.store.products import Product, find_product, work_folder
from tasks.store.sharing import borrow, lend


def test_what_one_campaign_lends_another_borrows(tmp_path: Path) -> None:
    lent = make(tmp_path / "first" / "nms", proposals=3)
    lend(lent, tmp_path / "shared")
    borrowed = borrow(tmp_path / "second" / "nms", RECIPE, tmp_path / "shared")
    assert borrowed is not None
    assert borrowed == replace(lent, folder=tmp_path / "second" / "nms")
    assert content(borrowed.folder) == content(lent.folder)
    assert (borrowed / "table").stat().st_ino == (lent / "table").stat().st_ino


def test_nothing_is_borrowed_for_another_recipe(tmp_path: Path) -> None:
    lend(make(tmp_path / "first" / "nms"), tmp_path / "shared")
    other = replace(RECIPE, inputs={**RECIPE.inputs, "pool": "a2"})
    assert borrow(tmp_path / "second" / "nms", other, tmp_path / "shared") is None
    assert not (tmp_path / "second").exists()


def test_what_was_damaged_is_not_borrowed_and_lent_anew(tmp_path: Path) -> None:
    lent, shared = make(tmp_path / "first" / "nms"), tmp_path / "shared"
    lend(lent, shared)
    table = shared / lent.fingerprint / "table"
    table.unlink()
    table.write_bytes(b"x" * 100)
    assert borrow(tmp_path / "second" / "nms", RECIPE, shared) is None
    lend(lent, shared)
    assert borrow(tmp_path / "second" / "nms", RECIPE, shared) is not None


def test_a_borrowed_product_outlives_the_lender(tmp_path: Path) -> None:
    lent, shared = make(tmp_path / "first" / "nms"), tmp_path / "shared"
    lend(lent, shared)
    borrow(tmp_path / "second" / "nms", RECIPE, shared)
    for folder in (lent.folder, shared / lent.fingerprint):
        for file in [*folder.rglob("*")][::-1]:
            file.unlink() if file.is_file() else file.rmdir()
    assert find_product(tmp_path / "second" / "nms", RECIPE) is not None


def test_a_stale_product_gives_way(tmp_path: Path) -> None:
    lent = make(tmp_path / "first" / "nms")
    lend(lent, tmp_path / "shared")
    make(tmp_path / "second" / "nms", replace(RECIPE, version=2), {"table": b"old"})
    borrowed = borrow(tmp_path / "second" / "nms", RECIPE, tmp_path / "shared")
    assert borrowed is not None
    assert content(borrowed.folder) == content(lent.folder)


class Crash(BaseException):
    """The process ends here."""


def die_lending(lent: Product, shared: Path) -> str:
    """Lend, in another process, to a death amid the files; returns the name of the folder that this leaves."""

    def die(*names: str) -> None:
        raise Crash

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sharing.os, "getpid", lambda: 1)
        patch.setattr(sharing, "_link_or_copy", die)
        with pytest.raises(Crash):
            lend(lent, shared)
    (left,) = set(listing(shared)) - {lent.fingerprint}
    return left


def test_what_a_death_amid_lending_left_goes_when_the_study_starts(tmp_path: Path, small: CampaignSettings) -> None:
    study = Study(tmp_path / "study", cast(Any, small))
    lent = make(tmp_path / "first" / "nms")
    left = die_lending(lent, study.shared)
    lend(lent, study.shared)
    assert listing(study.shared) == sorted([left, lent.fingerprint])  # a thread beside this one might be at it
    with writing(study):
        assert listing(study.shared) == [lent.fingerprint]


def test_attempts_at_what_is_borrowed_go(tmp_path: Path) -> None:
    lent, folder = make(tmp_path / "first" / "nms"), tmp_path / "second" / "nms"
    lend(lent, tmp_path / "shared")
    for left in (work_folder(folder, RECIPE.fingerprint), folder.parent / ".nms.1-2.linked"):
        shutil.copytree(lent.folder, left)
    assert borrow(folder, RECIPE, tmp_path / "shared") is not None
    assert listing(folder.parent) == ["nms"]
