"""Products that the campaigns of a study have in common, by fingerprint: made once, then linked."""

import os
import shutil
import threading
from pathlib import Path

from cereals_core.location import is_on_disk
from tasks.store.products import MANIFEST, Product, Recipe, clear_attempts, find_product, put_in_place
from tasks.store.storage import LINKED, copy_sealed, remove


def lend(product: Product, shared: Path) -> None:
    """Put a product where other campaigns find it."""
    folder = shared / product.fingerprint
    if find_product(folder) is None:
        _link(product.folder, folder)


def borrow(folder: Path, recipe: Recipe, shared: Path) -> Product | None:
    """Link the product of this recipe into `folder`, and return it, if a campaign has lent it."""
    lent = find_product(shared / recipe.fingerprint, recipe)
    if lent is None:
        return None
    clear_attempts(folder)
    _link(lent.folder, folder)
    return find_product(folder, recipe)


def _link(source: Path, folder: Path) -> None:
    """Make `folder` of links to the files of `source`, which nothing changes once they are committed."""
    if not is_on_disk(folder):
        copy_sealed(source, folder, MANIFEST)
        return
    work = folder.parent / f".{folder.name}.{os.getpid()}-{threading.get_ident()}{LINKED}"
    shutil.rmtree(work, ignore_errors=True)
    shutil.copytree(source, work, copy_function=_link_or_copy)
    try:
        put_in_place(folder, work)
    except OSError:  # another campaign of the study was faster
        if find_product(folder) is None:
            raise
        remove(work)


def _link_or_copy(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without links
        shutil.copy2(source, target)
