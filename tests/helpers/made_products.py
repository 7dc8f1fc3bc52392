"""Products of a few bytes."""

from pathlib import Path

from tasks.store.products import Product, Recipe, find_product, making, require

RECIPE = Recipe("nms", 1, {"acquisition.window_px": 24, "round": 0}, {"pool": "a1", "fused": "b2"})


FILES = {"table": bytes(range(100)), "maps/c/0": b"\0" * 64}


def fill(work: Path, files: dict[str, bytes]) -> None:
    for name, content in files.items():
        (work / name).parent.mkdir(parents=True, exist_ok=True)
        (work / name).write_bytes(content)


def make(folder: Path, recipe: Recipe = RECIPE, files: dict[str, bytes] = FILES, **facts: object) -> Product:
    with making(folder, recipe) as (work, noted):
        fill(work, files)
        noted.update(facts)
    return require(find_product(folder, recipe), folder)


def listing(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def content(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
