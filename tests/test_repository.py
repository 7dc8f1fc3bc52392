"""What the repository says about itself is true: its tree, commands, links, keys, recipes, versions."""

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from cereals_core.data_settings import CityscapesData, CocoData, MasksData, SyntheticData
from cereals_core.settings import CampaignSettings
from cereals_core.settings_files import read_either
from cereals_core.study_settings import StudySettings
from deployments.cli import app

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
SOURCES = ("cereals_core", "flows", "tasks", "deployments")
DOCUMENTS = [ROOT / name for name in ("README.md", "DESIGN.md", "CONTRIBUTING.md")]
DOCUMENTS += [ROOT / "data/README.md", ROOT / "deployments/README.md", *sorted((ROOT / "docs").rglob("*.md"))]
RECIPES = sorted((ROOT / "deployments/recipes").glob("*.toml"))
MAX_LINES, MAX_README_LINES = 300, 200
MACHINE_PATH = re.compile(r"(?<![\w.:/])/(?:home|root|work|Users)/\w+")


def code_blocks(markdown: str, language: str = "[^\\n]*") -> list[str]:
    """Texts between ``` fences, of one language or of all."""
    return re.findall(rf"^```{language}\n(.*?)^```", markdown, flags=re.MULTILINE | re.DOTALL)


def prose(markdown: str) -> str:
    """The text without its code blocks."""
    return re.sub(r"^```.*?^```", "", markdown, flags=re.MULTILINE | re.DOTALL)


def inline_code(markdown: str) -> list[str]:
    """Texts between single ` in the prose."""
    return re.findall(r"`([^`]+)`", prose(markdown))


def relative_links(markdown: str) -> list[str]:
    """Targets of links and pictures that lie in this repository: `path`, `path#heading` or `#heading`."""
    targets = re.findall(r"\]\(([^)\s]+)\)", re.sub(r"`[^`]+`", "", prose(markdown)))
    return [target for target in targets if not re.match(r"[a-z]+:", target)]


def anchors(markdown: str) -> set[str]:
    """What links to headings say behind #: lower case, words joined by dashes, no other signs."""
    headings = re.findall(r"^#+ (.+)$", prose(markdown), flags=re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def is_broken(document: Path, target: str) -> bool:
    path, _, anchor = target.partition("#")
    file = document.parent / path if path else document
    return not file.exists() or (bool(anchor) and anchor not in anchors(file.read_text()))


def commands(group: Any) -> set[str]:
    """Commands of the command line as they are typed: `run`, `data check`."""
    found: set[str] = set()
    for name, command in group.commands.items():
        found |= {f"{name} {each}" for each in commands(command)} if hasattr(command, "commands") else {name}
    return found


def named_commands(text: str) -> set[str]:
    """What follows `cereals` where a command is typed: a word, or two if the first is a group's."""
    typed = re.findall(r"\bcereals ([a-z]+)(?: ([a-z]+))?", text)
    groups = {command.split()[0] for command in COMMANDS if " " in command}
    return {f"{first} {second}".strip() if first in groups else first for first, second in typed}


COMMANDS = commands(typer.main.get_command(app))


def listed_tree(markdown: str) -> dict[str, str]:
    """Path (folders end in /) to description, from the code block that has a line starting with `cereals_core/`.

    A line is `<indent><name>  <description>`; what is indented deeper lies in the folder above it.
    """
    block = next((block for block in code_blocks(markdown) if re.search(r"^cereals_core/", block, re.MULTILINE)), "")
    tree, folders = {}, [(-1, "")]
    for line in filter(str.strip, block.splitlines()):
        indent = len(line) - len(line.lstrip())
        name, _, description = line.strip().partition("  ")
        while folders[-1][0] >= indent:
            folders.pop()
        path = folders[-1][1] + name
        tree[path] = description.strip()
        if name.endswith("/"):
            folders.append((indent, path))
    return tree


def is_docstring_only(file: Path) -> bool:
    """Whether a package's `__init__.py` holds no code: its folder's line in the tree speaks for it."""
    body = ast.parse(file.read_text()).body
    return file.name == "__init__.py" and all(isinstance(node, ast.Expr) for node in body)


def source_files() -> Iterator[Path]:
    for folder in SOURCES:
        for file in sorted((ROOT / folder).rglob("*")):
            if file.is_file() and file.suffix != ".pyc" and not file.name.startswith("."):
                yield file


def written_files() -> Iterator[Path]:
    yield from source_files()
    yield from (ROOT / "tests").rglob("*.py")
    yield from (file for folder in (ROOT, ROOT / "data", ROOT / "docs") for file in folder.iterdir() if file.is_file())
    yield ROOT / ".ci/run"


def relative(file: Path) -> str:
    return file.relative_to(ROOT).as_posix()


@pytest.fixture(scope="module")
def design() -> str:
    return (ROOT / "DESIGN.md").read_text()


def test_a_tree_is_read_by_its_indentation() -> None:
    text = "```text\ncereals_core/     the method\n  grid.py         pixels and cells\ndata/  none here\n```\n"
    assert listed_tree(text) == {
        "cereals_core/": "the method",
        "cereals_core/grid.py": "pixels and cells",
        "data/": "none here",
    }


def test_the_design_lists_every_source_file(design: str) -> None:
    expected = {relative(file) for file in source_files() if file.suffix != ".py" or not is_docstring_only(file)}
    assert sorted(expected - listed_tree(design).keys()) == []


def test_the_design_lists_nothing_that_does_not_exist(design: str) -> None:
    assert [path for path in listed_tree(design) if not (ROOT / path).exists()] == []


def test_the_design_describes_in_one_to_ten_words(design: str) -> None:
    assert {path: text for path, text in listed_tree(design).items() if not 1 <= len(text.split()) <= 10} == {}


@pytest.mark.parametrize("document", DOCUMENTS, ids=relative)
def test_make_targets_in_documents_exist(document: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    typed = "\n".join([*code_blocks(document.read_text()), *inline_code(document.read_text())])
    named = set(re.findall(r"^\s*(?:\$ )?(?:\w+=\S+ )*make ([a-z-]+)", typed, flags=re.MULTILINE))
    assert sorted(named - targets) == []


def test_the_readme_is_short() -> None:
    assert README.read_text().count("\n") <= MAX_README_LINES


def test_links_and_anchors_are_found_in_prose_alone() -> None:
    text = "# Is it, *so*?\n[a](b.md#c) ![d](e.png) [f](https://g) [h](#is-it-so) `[i](j)`\n```sh\n# k\n[l](m)\n```\n"
    assert relative_links(text) == ["b.md#c", "e.png", "#is-it-so"]
    assert anchors(text) == {"is-it-so"}


@pytest.mark.parametrize("document", DOCUMENTS, ids=relative)
def test_links_lead_to_files_and_headings_that_exist(document: Path) -> None:
    assert [target for target in relative_links(document.read_text()) if is_broken(document, target)] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=relative)
def test_commands_in_documents_exist(document: Path) -> None:
    typed = "\n".join([*code_blocks(document.read_text()), *inline_code(document.read_text())])
    assert sorted(named_commands(typed) - COMMANDS) == []


def test_the_table_of_commands_is_the_command_line() -> None:
    rows = re.findall(r"^\| (`cereals [^|]+) \|", README.read_text(), flags=re.MULTILINE)
    assert named_commands("\n".join(rows)) == COMMANDS


@pytest.mark.parametrize("document", DOCUMENTS, ids=relative)
def test_keys_of_campaign_files_in_documents_exist(document: Path) -> None:
    known = {
        f"{section}.{key}"
        for section, field in CampaignSettings.model_fields.items()
        for key in getattr(field.annotation, "model_fields", ())
    }
    known |= {
        f"data.{key}" for kind in (CocoData, MasksData, CityscapesData, SyntheticData) for key in kind.model_fields
    }
    sections = "|".join({key.partition(".")[0] for key in known})
    named = [re.match(rf"(?:{sections})\.[a-z_]+(?= =|$)", code) for code in inline_code(document.read_text())]
    assert sorted({each[0] for each in named if each} - known) == []


def test_campaign_and_study_file_of_the_readme_are_valid() -> None:
    campaign, section = map(tomllib.loads, code_blocks(README.read_text(), "toml"))
    assert CampaignSettings.model_validate(campaign).name == campaign["name"]
    del campaign["seed"], campaign["acquisition"]["strategy"]
    assert StudySettings.model_validate(campaign | section).study.strategies == tuple(section["study"]["strategies"])


def test_the_citation_is_of_this_version_and_names_the_paper() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert (citation["cff-version"], citation["title"]) == ("1.2.0", project["name"])
    assert (citation["version"], citation["license"]) == (project["version"], project["license"])
    assert citation["message"]
    assert citation["authors"] == [{"name": "The cereals authors"}]
    (paper,) = citation["references"]
    named = [f"{each['given-names']} {each['family-names']}" for each in paper["authors"]]
    cited = re.sub(r"\s*\n> ", " ", README.read_text())
    assert f"{', '.join(named)}. {paper['title']}. {paper['conference']['name']}, {paper['year']}." in cited
    assert paper["identifiers"][0]["value"] in cited


@pytest.mark.parametrize("package", SOURCES)
def test_package_is_this_checkout_from_any_folder(package: str, tmp_path: Path) -> None:
    code = f"from importlib.util import find_spec; print(find_spec({package!r}))"
    found = subprocess.run([sys.executable, "-I", "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert str(ROOT / package) in found.stdout, "not this checkout's: run the tests by `make test`, which installs it"


def test_recipes_exist() -> None:
    assert RECIPES


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda file: file.stem)
def test_recipe_is_valid_and_begins_with_its_head(recipe: Path) -> None:
    read_either(recipe)
    assert recipe.read_text().startswith("# "), (
        f"{recipe.name}: begin with a comment: paper, command, hours, expectation"
    )


def test_long_files_give_their_reason() -> None:
    long = [file for file in written_files() if file.suffix == ".py" and file.read_text().count("\n") > MAX_LINES]
    assert [relative(file) for file in long if f"# Longer than {MAX_LINES} lines: " not in file.read_text()] == []


def test_no_file_names_a_path_of_one_machine() -> None:
    found = {relative(file): MACHINE_PATH.findall(file.read_text(errors="replace")) for file in written_files()}
    assert {path: paths for path, paths in found.items() if paths} == {}


def test_constraints_pin_every_dependency_within_its_range() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = dict(line.split("==") for line in lines if line and not line.startswith("#"))
    pins = {canonicalize_name(name): version for name, version in pins.items()}
    declared = [Requirement(text) for text in project["dependencies"] + project["optional-dependencies"]["dev"]]
    unpinned = [
        str(need) for need in declared if not need.specifier.contains(pins.get(canonicalize_name(need.name), "0"))
    ]
    assert unpinned == []
