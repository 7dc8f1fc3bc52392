"""Products: a stage's result as a folder that appears whole or not at all, and says what it was made from."""

import hashlib
import json
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path, PurePath
from typing import Any, cast

from cereals_core.errors import ProductError
from cereals_core.location import is_on_disk
from tasks.store.storage import (
    LINKED,
    STALE,
    UNFINISHED,
    Files,
    files_below,
    make_folder,
    move_in_place,
    read_whole,
    remove,
    remove_file,
    sync,
    write_atomically,
)

MANIFEST = "manifest.json"
PRUNED = "pruned"
"""File that marks a product whose maps were removed on purpose: its facts stay, its maps cannot be read again."""
HASHED_ON_OPEN_BYTES = 1 << 30
"""Products up to this size, among them the weights of the largest network, are hashed again whenever they are opened.
Larger ones are maps, whose chunks carry checksums of their own that are checked when they are read: of those the sizes
are compared, and only small files (arrays' metadata, scales) are hashed. So it is with all products in an object store,
which checks what it holds, and where reading is dear."""
SMALL_FILE_BYTES = 64 << 10
WORK_FOLDER = re.compile(r"\.([a-z-]+)\.[0-9a-f]{16}")
"""Names of the folders in which products are made, with the stage's."""


@dataclass(frozen=True)
class Recipe:
    """What a product is made from: stage, its version, the settings it depends on, the digests of its inputs."""

    stage: str
    version: int
    settings: Mapping[str, Any]
    inputs: Mapping[str, str]

    @property
    def fingerprint(self) -> str:
        """Hash of the recipe; two products of one fingerprint have the same content."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class Product:
    """A finished product: its folder, the hash of its files, and what its stage said of it."""

    folder: Path
    digest: str
    fingerprint: str
    stage: str
    elapsed_s: float
    total_bytes: int
    made_at: float = 0.0
    """When it was finished, in seconds since the epoch."""
    inputs: Mapping[str, str] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)

    def __truediv__(self, name: str) -> Path:
        return self.folder / name


def find_product(folder: Path, recipe: Recipe | None = None, hashed: bool = True) -> Product | None:
    """Find the valid product in `folder`, made from `recipe` if one is given, or None.

    Manifests that are unreadable or not as they were written, missing files, other sizes and other hashes all make it
    invalid. Not `hashed`: only the sizes of files are compared.
    """
    try:
        there = files_below(folder)
        found = _read_manifest(folder, there)
        if found is None or (recipe is not None and found[0].fingerprint != recipe.fingerprint):
            return None
        product, files = found
        whole = product.total_bytes <= HASHED_ON_OPEN_BYTES and is_on_disk(folder)
        hashed_bytes = (product.total_bytes if whole else SMALL_FILE_BYTES) if hashed else -1
        return product if _are_intact(folder, files, there, hashed_bytes) else None
    except OSError:
        return None


def recorded(folder: Path) -> Product | None:
    """Return what the manifest in `folder` tells of its product, for who wants facts alone: no other file is read."""
    there = {MANIFEST: (0, "")} if is_on_disk(folder) else files_below(folder)
    found = _read_manifest(folder, there)
    return found[0] if found else None


@lru_cache(maxsize=1 << 14)
def recorded_version(folder: Path, version: object) -> Product | None:
    """Return the same as `recorded`; `version` is another whenever the manifest is, which is read once for each."""
    found = _read_manifest(folder, {MANIFEST: (0, "")})
    return found[0] if found else None


def _read_manifest(folder: Path, there: Files) -> tuple[Product, Mapping[str, Sequence[Any]]] | None:
    """Read the product, and size and hash of each of its files; None without a manifest that is as it was written."""
    try:
        manifest = json.loads(read_whole(folder / MANIFEST, there[MANIFEST][1]))
        checksum = manifest.pop("checksum")
        product = Product(
            folder=folder,
            digest=manifest["digest"],
            fingerprint=manifest["fingerprint"],
            stage=manifest["recipe"]["stage"],
            elapsed_s=manifest["elapsed_s"],
            total_bytes=sum(size for size, _ in manifest["files"].values()),
            made_at=datetime.fromisoformat(manifest["made_at"]).timestamp(),
            inputs=manifest["recipe"]["inputs"],
            facts=manifest["facts"],
        )
        return (product, manifest["files"]) if checksum == _digest(manifest) else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _are_intact(folder: Path, files: Mapping[str, Sequence[Any]], there: Files, hashed_bytes: int) -> bool:
    """Tell whether the files that are there have their sizes, and those up to so many bytes their hashes."""
    return all(
        name in there
        and there[name][0] == size
        and (size > hashed_bytes or _sha256(folder / name, *there[name]) == sha256)
        for name, (size, sha256) in files.items()
    )


@contextmanager
def making(folder: Path, recipe: Recipe) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Make a product: yields a folder to write into and a dict for facts; commits when the block ends well.

    The working folder is a sibling named after the recipe. It stays when the block fails or the process dies, so that
    the next attempt at the same recipe finds what is there; those of other recipes are removed.
    """
    work = work_folder(folder, recipe.fingerprint)
    clear_attempts(folder, work)
    make_folder(work)
    facts: dict[str, Any] = {}
    started = time.monotonic()
    yield work, facts
    _write_manifest(work, recipe, facts, time.monotonic() - started)
    put_in_place(folder, work)


def clear_attempts(folder: Path, kept: Path | None = None) -> None:
    """Remove what attempts at a product have left beside it, but for one folder."""
    for attempt in folder.parent.glob(f".{folder.name}.*"):
        if attempt != kept:
            remove(attempt)


def clear_dead(parent: Path) -> None:
    """Remove what the dead left beside products and nothing goes on from; no other process may write there."""
    for folder in parent.glob(".*.*"):
        if folder.suffix in (STALE, LINKED) or _is_done(folder):
            remove(folder)


def _is_done(work: Path) -> bool:
    """Tell whether the product of a working folder is in its place, of the same recipe."""
    product = find_product(work.parent / work.stem.removeprefix("."), hashed=False)
    return product is not None and work == work_folder(product.folder, product.fingerprint)


def work_folder(folder: Path, fingerprint: str) -> Path:
    """Name the folder where a product of this recipe is made before it gets its place."""
    return folder.parent / f".{folder.name}.{fingerprint[:16]}"


def _write_manifest(work: Path, recipe: Recipe, facts: dict[str, Any], elapsed_s: float) -> None:
    there = files_below(work)
    for leftover in [name for name in there if _is_left(PurePath(name))]:
        remove_file(work / leftover)
        del there[leftover]
    files = {name: [there[name][0], _sha256(work / name, *there[name])] for name in sorted(there)}
    manifest = {
        "recipe": asdict(recipe),
        "fingerprint": recipe.fingerprint,
        "digest": _digest(files),
        "elapsed_s": round(elapsed_s, 3),
        "made_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "facts": facts,
        "files": files,
    }
    for name in files:
        sync(work / name)
    manifest["checksum"] = _digest(manifest)
    write_atomically(work / MANIFEST, json.dumps(manifest, indent=1).encode())


def _is_left(file: PurePath) -> bool:
    """Tell whether this name below a working folder is what an earlier attempt left, and no file of the product."""
    return file == PurePath(MANIFEST) or file.match("*.partial") or file.match(UNFINISHED)


def put_in_place(folder: Path, work: Path) -> None:
    """Give a finished working folder its place, whatever is there."""
    move_in_place(folder, work, MANIFEST)


def is_pruned(folder: Path) -> bool:
    """Tell whether the maps of the product were removed on purpose."""
    return (folder / PRUNED).exists()


def require(product: Product | None, folder: Path) -> Product:
    """Find the product, or raise a ProductError that says what to run."""
    if product is None and is_pruned(folder):
        raise ProductError(f"{folder}: its maps were removed by `cereals gc`; take a round that it has kept")
    if product is None:
        raise ProductError(
            f"{folder}: no valid product is there; `cereals run` or `cereals study` with its file makes it, once what "
            "is there was removed"
        )
    return product


def _digest(table: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(table, sort_keys=True).encode()).hexdigest()


def _sha256(file: Path, size: int, version: str) -> str:
    if 0 < size <= SMALL_FILE_BYTES:
        return hashlib.sha256(read_whole(file, version)).hexdigest()
    with file.open("rb") as stream:
        return hashlib.file_digest(cast(Any, stream), "sha256").hexdigest()
