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
from tasks.store.ledger import Row

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


def told(study: Path) -> tuple[list[Row], list[Row]]:
    """Read the tables of a study, of campaigns that have ended."""
    points, classes = (table.read(study).to_pylist() for table in (tables.RESULTS, tables.CLASS_RESULTS))
    ended = {(row["arm"], row["seed"]) for row in points if row["ended"]}
    found = [[row for row in rows if (row["arm"], row["seed"]) in ended] for rows in (points, classes)]
    return found[0], found[1]


def blocks() -> dict[str, str]:
    """Write all blocks of the pages, from all tables."""
    made, facts = dict[str, str](), list[StudyFacts]()
    for study in studies():
        points, classes = told(study)
        facts.append(facts_from(study.name, points, classes))
        made |= blocks_of(facts[-1], points, classes)
    return made | {"goals": goals(facts)}


def main(taken: list[str]) -> None:
    """Take in tables, draw figures, and rewrite the pages' blocks."""
    for folder in taken:
        take_in(Path(folder))
    for study in studies():
        (study / "curves.png").write_bytes(study_curve(facts_from(study.name, *told(study)), "clicks"))
    made = blocks()
    for page in PAGES:
        page.write_text(with_blocks(page.read_text(), made))


if __name__ == "__main__":
    main(sys.argv[1:])
