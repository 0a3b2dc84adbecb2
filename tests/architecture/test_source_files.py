"""Sizes, names and contents that every file keeps to."""

import ast
import re
from pathlib import Path

import pytest

from tests.architecture.source_tree import ROOT, package_modules, project_files

MAX_LINES = 300
# Names that say nothing about what is inside.
FORBIDDEN_NAMES = {"utils", "util", "common", "helpers", "misc", "manager", "service", "handler"}
# Where files lie on somebody's machine, and where packages come from there.
MACHINE_SPECIFIC = re.compile(
    r"(?<![\w.$~])/(?:home|Users)/[A-Za-z]|(?<![\w.])/root/|(?:--)?(?:extra-)?index-url\s*[= ]\s*.?http|--find-links"
)
THIS = Path(__file__).relative_to(ROOT)


def words(name: str) -> set[str]:
    """`ModelManager` and `model_manager` are both {"model", "manager"}."""
    return {part.lower() for part in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", name)}


@pytest.mark.parametrize("path", package_modules(), ids=str)
def test_file_is_short(path: Path) -> None:
    lines = len((ROOT / path).read_text().splitlines())
    assert lines <= MAX_LINES, f"{path} has {lines} lines: it holds two nouns"


@pytest.mark.parametrize("path", package_modules(), ids=str)
def test_names_say_something(path: Path) -> None:
    classes = [node.name for node in ast.walk(ast.parse((ROOT / path).read_text())) if isinstance(node, ast.ClassDef)]
    for name in (*path.with_suffix("").parts, *classes):
        assert not words(name) & FORBIDDEN_NAMES, f"{path}: {name}"


def test_no_file_knows_the_machine_it_was_written_on() -> None:
    # A checkout near the root of the disk has too short a name to be looked for.
    own = [str(ROOT)] if len(ROOT.parts) > 2 else []
    found = []
    for path in project_files():
        try:
            text = (ROOT / path).read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        if path != THIS:
            found += [
                f"{path}:{number}: {line.strip()[:100]}"
                for number, line in enumerate(text.splitlines(), 1)
                if MACHINE_SPECIFIC.search(line) or any(name in line for name in own)
            ]
    assert not found, "\n".join(found)


def test_files_of_tests_have_names_of_their_own() -> None:
    """pytest imports those beside which there is no `__init__.py` by their names alone, and takes one for another."""
    tests = [path for path in project_files() if path.parts[0] == "tests" and path.match("test_*.py")]
    names = [path.name for path in tests if not (ROOT / path.parent / "__init__.py").exists()]
    assert names
    assert sorted({name for name in names if names.count(name) > 1}) == []
