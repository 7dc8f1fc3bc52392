"""Products when the process ends: at any line of the code that commits them, and by a signal."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType, SimpleNamespace
from typing import Any

import pytest
from checkout import ROOT

from cereals_core.settings import CampaignSettings
from tasks.running.opening import writing
from tasks.store import products, storage
from tasks.store.layout import Campaign
from tasks.store.products import MANIFEST, Product, Recipe, find_product, making, require
from tasks.store.storage import write_atomically

OLD, NEW = Recipe("nms", 1, {}, {}), Recipe("nms", 2, {}, {})


def make(folder: Path, recipe: Recipe, table: bytes) -> Product:
    with making(folder, recipe) as (work, _):
        (work / "table").write_bytes(table)
    return require(find_product(folder, recipe), folder)


def listing(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


class Crash(BaseException):
    """The process ends here."""


@contextmanager
def crash_at(step: int) -> Iterator[None]:
    """End at the `step`-th line that the code of products and storage executes."""
    left = step

    def trace(frame: FrameType, event: str, arg: object) -> Any:
        nonlocal left
        if frame.f_code.co_filename not in (products.__file__, storage.__file__):
            return None
        left -= event == "line"
        if left == 0:
            raise Crash
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        yield
    finally:
        sys.settrace(before)


def crash_while_replacing(parent: Path, step: int) -> bool:
    """Make a product over an older one, ending at a step; whether it came so far."""
    make(parent / "nms", OLD, b"old")
    try:
        with crash_at(step), making(parent / "nms", NEW) as (work, _):
            (work / "table").write_bytes(b"new")
            (work / ".table.new").write_bytes(b"half")
    except Crash:
        return True
    return False


def test_a_crash_at_any_line_leaves_the_old_product_or_the_new_one_or_none(tmp_path: Path) -> None:
    seen = set()
    for step in range(1, 1000):
        folder = tmp_path / str(step) / "nms"
        if not crash_while_replacing(folder.parent, step):
            break
        found = find_product(folder)
        assert (found is None) == (not folder.exists())
        seen.add(None if found is None else (found / "table").read_bytes())
        assert (make(folder, NEW, b"new") / "table").read_bytes() == b"new"
        assert listing(folder.parent) == ["nms"]
        assert set(listing(folder)) == {"table", MANIFEST}
    assert step > 30
    assert seen == {b"old", None, b"new"}


def test_a_crash_while_the_old_product_is_being_removed_leaves_the_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def remove_half(folder: Path, ignore_errors: bool = False) -> None:
        if folder.exists():
            (folder / MANIFEST).unlink()
            raise Crash

    folder = tmp_path / "nms"
    make(folder, OLD, b"old")
    monkeypatch.setattr(storage, "shutil", SimpleNamespace(rmtree=remove_half))
    with pytest.raises(Crash):
        make(folder, NEW, b"new")
    monkeypatch.undo()
    assert (require(find_product(folder, NEW), folder) / "table").read_bytes() == b"new"
    make(folder, OLD, b"old")
    assert listing(tmp_path) == ["nms"]


def test_what_the_dead_left_goes_at_the_next_start_and_what_may_go_on_stays(
    small: CampaignSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(folder: Path, ignore_errors: bool = False) -> None:
        if folder.exists():
            raise Crash

    campaign = Campaign(small.path, small)
    folder = campaign.stage("nms", 0)
    make(folder, OLD, b"old")
    with monkeypatch.context() as dying:
        dying.setattr(storage, "shutil", SimpleNamespace(rmtree=die))
        with pytest.raises(Crash):
            make(folder, NEW, b"new")
    unfinished = products.work_folder(folder, OLD.fingerprint)
    needless = products.work_folder(folder, NEW.fingerprint)
    for work in (unfinished, needless, folder.parent / ".info-map.1-2.linked"):
        work.mkdir()
    assert ".nms.stale" in listing(folder.parent)
    with writing(campaign):
        assert listing(folder.parent) == sorted([unfinished.name, "nms"])
        assert find_product(folder, NEW) is not None


KILLED = """
import sys, time
from pathlib import Path
from tasks.store.products import Recipe, making
with making(Path(sys.argv[1]), Recipe("nms", 1, {}, {})) as (work, facts):
    (work / "first").write_text("done")
    print("ready", flush=True)
    time.sleep(600)
"""


def test_a_process_killed_in_the_block_leaves_its_files_to_the_next(tmp_path: Path) -> None:
    folder = tmp_path / "nms"
    command = [sys.executable, "-c", KILLED, str(folder)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.kill()
    assert process.returncode == -signal.SIGKILL
    assert find_product(folder) is None
    assert not folder.exists()
    with making(folder, OLD) as (work, _):
        assert (work / "first").read_text() == "done"
        (work / "second").write_text("done")
    assert require(find_product(folder, OLD), folder).total_bytes == 8
    assert set(listing(folder)) == {"first", "second", MANIFEST}


def test_a_file_is_written_whole_or_stays_as_it_was(tmp_path: Path) -> None:
    file = tmp_path / "ledger"
    write_atomically(file, b"old")
    for step in range(1, 100):
        try:
            with crash_at(step):
                write_atomically(file, b"new")
        except Crash:
            assert file.read_bytes() in (b"old", b"new")
            write_atomically(file, b"old")
        else:
            break
    assert file.read_bytes() == b"new"
    assert listing(tmp_path) == ["ledger"]
