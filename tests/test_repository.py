"""What the repository says about itself is true: its tree, its commands, its recipes, its versions."""

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from cereals_core.settings_files import is_study, read_settings, read_study

ROOT = Path(__file__).parent.parent
SOURCES = ("cereals_core", "flows", "tasks", "deployments")
RECIPES = sorted((ROOT / "deployments/recipes").glob("*.toml"))
MAX_LINES = 300
MACHINE_PATH = re.compile(r"(?<![\w.:/])/(?:home|root|work|Users)/\w+")


def code_blocks(markdown: str) -> list[str]:
    """Texts between ``` fences."""
    return re.findall(r"^```[^\n]*\n(.*?)^```", markdown, flags=re.MULTILINE | re.DOTALL)


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
    yield from (file for folder in (ROOT, ROOT / "data") for file in folder.iterdir() if file.is_file())
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


@pytest.mark.parametrize("document", ["README.md", "CONTRIBUTING.md", "data/README.md"])
def test_make_targets_in_documents_exist(document: str) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    commands = "\n".join(code_blocks((ROOT / document).read_text()))
    named = set(re.findall(r"^\s*(?:\$ )?(?:\w+=\S+ )*make ([a-z-]+)", commands, flags=re.MULTILINE))
    assert sorted(named - targets) == []


@pytest.mark.parametrize("package", SOURCES)
def test_package_is_this_checkout_from_any_folder(package: str, tmp_path: Path) -> None:
    code = f"from importlib.util import find_spec; print(find_spec({package!r}))"
    found = subprocess.run([sys.executable, "-I", "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert str(ROOT / package) in found.stdout, "not this checkout's: run the tests by `make test`, which installs it"


def test_recipes_exist() -> None:
    assert RECIPES


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda file: file.stem)
def test_recipe_is_valid_and_begins_with_its_head(recipe: Path) -> None:
    read = read_study if is_study(recipe) else read_settings
    read(recipe)
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
