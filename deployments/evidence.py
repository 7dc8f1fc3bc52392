"""The documentation's evidence, from the tables of studies: `python -m deployments.evidence [STUDY_FOLDER ...]`.

Tables of the studies that are named are taken into `docs/evidence`; then its figures, and the blocks of the pages that
are made from tables, are made again from all that is there.
"""

import shutil
import sys
from pathlib import Path

from cereals_core.study_statistics import StudyFacts
from tasks.pages.evidence import blocks_of, goals, with_blocks
from tasks.pages.study_figures import study_curve
from tasks.pages.study_results import facts_from
from tasks.store import tables

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "docs/evidence"
PAGES = (ROOT / "README.md", ROOT / "docs/evidence.md")


def take_in(study: Path) -> None:
    """Copy the tables of a study, and no more of it."""
    (FOLDER / study.name).mkdir(parents=True, exist_ok=True)
    for table in (tables.RESULTS, tables.CLASS_RESULTS):
        shutil.copyfile(study / table.file, FOLDER / study.name / table.file)


def studies() -> list[Path]:
    """List the folders of studies whose tables are there."""
    return sorted(file.parent for file in FOLDER.glob(f"*/{tables.RESULTS.file}"))


def blocks() -> dict[str, str]:
    """Write all blocks of the pages, from all tables."""
    made, told = dict[str, str](), list[StudyFacts]()
    for folder in studies():
        points, classes = (table.read(folder).to_pylist() for table in (tables.RESULTS, tables.CLASS_RESULTS))
        told.append(facts_from(folder.name, points, classes))
        made |= blocks_of(told[-1], points, classes)
    return made | {"goals": goals(told)}


def main(taken: list[str]) -> None:
    """Take in tables, draw figures, and rewrite the pages' blocks."""
    for study in taken:
        take_in(Path(study))
    for folder in studies():
        points, classes = (table.read(folder).to_pylist() for table in (tables.RESULTS, tables.CLASS_RESULTS))
        (folder / "curves.png").write_bytes(study_curve(facts_from(folder.name, points, classes), "clicks"))
    made = blocks()
    for page in PAGES:
        page.write_text(with_blocks(page.read_text(), made))


if __name__ == "__main__":
    main(sys.argv[1:])
