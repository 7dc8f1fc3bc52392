from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import pytest
from botocore.exceptions import EndpointConnectionError
from fsspec.implementations import memory
from upath import UPath

from cereals_core.errors import CerealsError, SettingsError, StorageError
from tasks.store import products
from tasks.store.products import MANIFEST, Product, Recipe, clear_dead, find_product, making, require
from tasks.store.storage import (
    explained,
    make_folder,
    read_whole,
    remove,
    sizes_below,
    telling_of_storage,
    write_atomically,
    written_whole,
)

OLD, NEW = Recipe("nms", 1, {}, {}), Recipe("nms", 2, {}, {})


@pytest.fixture
def store() -> Iterator[Path]:
    """A prefix in an object store that is this process's memory."""
    yield cast(Path, UPath("memory://bucket/campaign"))
    memory.MemoryFileSystem.store.clear()
    memory.MemoryFileSystem.pseudo_dirs[:] = [""]


@pytest.fixture(params=["disk", "store"])
def place(request: pytest.FixtureRequest, tmp_path: Path, store: Path) -> Path:
    return tmp_path if request.param == "disk" else store


def make(folder: Path, recipe: Recipe, **files: bytes) -> Product:
    with making(folder, recipe) as (work, _):
        for name, content in files.items():
            write_atomically(work / name, content)
    return require(find_product(folder, recipe), folder)


def test_files_are_listed_by_their_names_below_the_folder(place: Path) -> None:
    (place / "nms" / "maps").mkdir(parents=True)
    (place / "nms-map").mkdir()
    for name in ("nms/table", "nms/maps/c", "nms-map/c"):
        write_atomically(place / name, name.encode())
    assert sizes_below(place / "nms") == {"table": 9, "maps/c": 10}
    assert sizes_below(place / "nm") == {}
    assert read_whole(place / "nms/table") == b"nms/table"
    remove(place / "nms")
    remove(place / "nms")
    assert sizes_below(place) == {"nms-map/c": 9}


def test_a_file_whose_writing_fails_stays_as_it_was(place: Path) -> None:
    write_atomically(place / "ledger", b"old")
    with pytest.raises(TypeError), written_whole(place / "ledger") as stream:
        stream.writelines([b"new", cast(Any, None)])
    assert read_whole(place / "ledger") == b"old"
    assert sizes_below(place) == {"ledger": 3}


def test_a_store_gets_no_folders_and_so_no_bucket(store: Path) -> None:
    make_folder(store / "rounds")
    assert not cast(Any, store).fs.exists("bucket")


def test_a_version_is_read_once(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_atomically(store / "scales", b"{}")
    read, cat_file = [], memory.MemoryFileSystem.cat_file

    def counted(self: memory.MemoryFileSystem, path: str, **options: Any) -> bytes:
        read.append(path)
        return cast(bytes, cat_file(self, path, **options))

    monkeypatch.setattr(memory.MemoryFileSystem, "cat_file", counted)
    contents = [read_whole(store / "scales", version) for version in ("a", "a", "b", "", "")]
    assert contents == [b"{}"] * 5
    assert len(read) == 4


def test_what_cannot_be_removed_is_told(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(store / "nms", OLD, table=b"old", scales=b"old")
    monkeypatch.setattr(memory.MemoryFileSystem, "rm", lambda self, paths: None)
    with pytest.raises(OSError, match=r"nms: 2 files cannot be removed, among them scales$"):
        make(store / "nms", NEW, table=b"new")
    assert find_product(store / "nms") is None
    monkeypatch.undo()
    make(store / "nms", NEW, table=b"new")
    assert sizes_below(store).keys() == {"nms/table", f"nms/{MANIFEST}"}


@pytest.mark.parametrize("name", ["table", "scales", MANIFEST])
@pytest.mark.parametrize("damage", ["missing", "truncated", "flipped"])
def test_damaged_objects_are_noticed(store: Path, name: str, damage: str) -> None:
    folder = store / "nms"
    made = make(folder, OLD, table=b"12345", scales=b"{}")
    content = (folder / name).read_bytes()
    if damage == "missing":
        (folder / name).unlink()
    else:
        (folder / name).write_bytes(content[:-1] if damage == "truncated" else bytes([content[0] ^ 1]) + content[1:])
    assert find_product(folder, OLD) is None
    assert make(folder, OLD, table=b"12345", scales=b"{}").digest == made.digest


class Crash(BaseException):
    """The process ends here."""


@contextmanager
def crash_at(step: int) -> Iterator[None]:
    """End before the `step`-th change of the store, which takes each object whole or not at all."""
    steps = iter(range(1, step))

    def counted(change: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*arguments: Any, **options: Any) -> Any:
            if next(steps, None) is None:
                raise Crash
            return change(*arguments, **options)

        return wrapped

    with pytest.MonkeyPatch.context() as patch:
        for name in ("cp_file", "rm_file", "put_file"):
            patch.setattr(memory.MemoryFileSystem, name, counted(getattr(memory.MemoryFileSystem, name)))
        yield


def crash_while_replacing(folder: Path, step: int) -> bool:
    """Make a product over an older one, ending at a step; whether it came so far."""
    make(folder, OLD, table=b"old", maps=b"old", gone=b"old")
    try:
        with crash_at(step), making(folder, NEW) as (work, _):
            for name in ("table", "maps", "scales"):
                write_atomically(work / name, b"new")
    except Crash:
        return True
    return False


def test_a_crash_anywhere_leaves_the_old_product_or_the_new_one_or_none(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(products, "SMALL_FILE_BYTES", -1)  # no hash tells that files are mixed
    seen = set()
    for step in range(1, 100):
        folder = store / "nms"
        remove(folder)
        if not crash_while_replacing(folder, step):
            break
        found = find_product(folder)
        if found is None:
            seen.add(frozenset[bytes]())
        else:
            names = ("table", "maps", "gone") if found.fingerprint == OLD.fingerprint else ("table", "maps", "scales")
            seen.add(frozenset((folder / name).read_bytes() for name in names))
            assert sizes_below(folder).keys() == {*names, MANIFEST}
            clear_dead(store)
            work = {name for name in sizes_below(store) if not name.startswith("nms/")}
            assert not (work and found.fingerprint == NEW.fingerprint)
        make(folder, NEW, table=b"new", maps=b"new", scales=b"new")
        assert sizes_below(folder.parent).keys() == {f"nms/{name}" for name in ("table", "maps", "scales", MANIFEST)}
    assert step == 4 + 4 + 4 + 4 + 1  # written, old ones removed, copied, working ones removed
    assert seen == {frozenset([b"old"]), frozenset[bytes](), frozenset([b"new"])}


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (
            FileNotFoundError("The specified bucket does not exist"),
            r'there is no bucket "" \(File.* exist\); make it, or',
        ),
        (
            PermissionError("Access Denied"),
            r"access is denied \(PermissionError: Access Denied\); set AWS_ACCESS_KEY_ID",
        ),
        (
            TimeoutError(),
            r"does not answer as it should \(no answer in 10 s\); check the network and AWS_ENDPOINT_URL$",
        ),
        (RuntimeError("x"), r"does not answer as it should \(RuntimeError: x\); check"),
    ],
)
def test_errors_of_a_store_end_with_the_remedy(store: Path, error: Exception, expected: str) -> None:
    with pytest.raises(SettingsError, match=rf'^folder = "memory://bucket/campaign": .*{expected}'), explained(store):
        raise error
    with pytest.raises(CerealsError, match=r"^as it was$"), explained(store):
        raise CerealsError("as it was")


def test_errors_of_a_store_in_the_middle_of_a_run_are_told(store: Path) -> None:
    expected = r"^memory://bucket/campaign: .* check the network and AWS_ENDPOINT_URL, then run the same command again"
    for error in (EndpointConnectionError(endpoint_url="http://gone"), TimeoutError(), FileNotFoundError("gone")):
        with pytest.raises(StorageError, match=expected), telling_of_storage(store):
            raise error
    with pytest.raises(ZeroDivisionError), telling_of_storage(store):
        raise ZeroDivisionError
