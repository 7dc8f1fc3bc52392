"""Products: a stage's result as a folder that appears whole or not at all, and says what it was made from."""

import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from cereals_core.errors import ProductError

MANIFEST = "manifest.json"
HASHED_ON_OPEN_BYTES = 1 << 30
"""Products up to this size, among them the weights of the largest network, are hashed again whenever they are opened.
Larger ones are maps, whose chunks carry checksums of their own that are checked when they are read: of those the sizes
are compared, and only small files (arrays' metadata, scales) are hashed."""
SMALL_FILE_BYTES = 64 << 10


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
    inputs: Mapping[str, str] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)

    def __truediv__(self, name: str) -> Path:
        return self.folder / name


def find_product(folder: Path, recipe: Recipe | None = None) -> Product | None:
    """The valid product in `folder`, made from `recipe` if one is given, or None.

    Manifests that are unreadable or not as they were written, missing files, other sizes and other hashes all make it
    invalid.
    """
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
        checksum = manifest.pop("checksum")
        product = Product(
            folder=folder,
            digest=manifest["digest"],
            fingerprint=manifest["fingerprint"],
            stage=manifest["recipe"]["stage"],
            elapsed_s=manifest["elapsed_s"],
            total_bytes=sum(size for size, _ in manifest["files"].values()),
            inputs=manifest["recipe"]["inputs"],
            facts=manifest["facts"],
        )
        files: dict[str, list[Any]] = manifest["files"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    if checksum != _digest(manifest) or (recipe is not None and product.fingerprint != recipe.fingerprint):
        return None
    whole = product.total_bytes <= HASHED_ON_OPEN_BYTES
    intact = all(
        _is_intact(folder / name, size, sha256, whole or size <= SMALL_FILE_BYTES)
        for name, (size, sha256) in files.items()
    )
    return product if intact else None


def _is_intact(file: Path, size: int, sha256: str, hashed: bool) -> bool:
    try:
        return file.stat().st_size == size and (not hashed or _sha256(file) == sha256)
    except OSError:
        return False


@contextmanager
def making(folder: Path, recipe: Recipe) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Work on a product: yields a folder to write into and a dict for facts; commits when the block ends well.

    The working folder is a sibling named after the recipe. It stays when the block fails or the process dies, so that
    the next attempt at the same recipe finds what is there; those of other recipes are removed.
    """
    work = folder.parent / f".{folder.name}.{recipe.fingerprint[:16]}"
    for other in folder.parent.glob(f".{folder.name}.*"):
        if other != work:
            shutil.rmtree(other)
    work.mkdir(parents=True, exist_ok=True)
    facts: dict[str, Any] = {}
    started = time.monotonic()
    yield work, facts
    _write_manifest(work, recipe, facts, time.monotonic() - started)
    put_in_place(folder, work)


def _write_manifest(work: Path, recipe: Recipe, facts: dict[str, Any], elapsed_s: float) -> None:
    (work / MANIFEST).unlink(missing_ok=True)
    for leftover in (*work.rglob("*.partial"), *work.rglob(".*.new")):
        leftover.unlink()
    paths = sorted(path for path in work.rglob("*") if path.is_file())
    files = {path.relative_to(work).as_posix(): [path.stat().st_size, _sha256(path)] for path in paths}
    manifest = {
        "recipe": asdict(recipe),
        "fingerprint": recipe.fingerprint,
        "digest": _digest(files),
        "elapsed_s": round(elapsed_s, 3),
        "made_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "facts": facts,
        "files": files,
    }
    for path in paths:
        _sync(path)
    manifest["checksum"] = _digest(manifest)
    write_atomically(work / MANIFEST, json.dumps(manifest, indent=1).encode())


def put_in_place(folder: Path, work: Path) -> None:
    """Rename a finished working folder to `folder`, in place of what is there."""
    if folder.exists():
        stale = folder.parent / f".{folder.name}.stale"
        shutil.rmtree(stale, ignore_errors=True)
        folder.rename(stale)
        work.rename(folder)
        shutil.rmtree(stale)
    else:
        work.rename(folder)
    _sync(folder.parent)


def write_atomically(file: Path, content: bytes) -> None:
    """Write a file so that it is there whole or not at all."""
    temporary = file.with_name(f".{file.name}.new")
    temporary.write_bytes(content)
    _sync(temporary)
    temporary.replace(file)
    _sync(file.parent)


def require(product: Product | None, folder: Path) -> Product:
    """The product, or a ProductError that says what to run."""
    if product is None:
        raise ProductError(
            f"{folder}: no valid product is there; `cereals run` or `cereals study` with its file makes it"
        )
    return product


def _digest(table: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(table, sort_keys=True).encode()).hexdigest()


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
