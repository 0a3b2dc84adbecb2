"""docs/structure.md names files and functions that exist."""

import ast
import re

import pytest

from tests.architecture.source_tree import ROOT

PAGE = (ROOT / "docs" / "structure.md").read_text()
STATION = re.compile(r"`([\w./-]+\.py)(?::([\w.]+))?`")
STATIONS = sorted(set(STATION.findall(PAGE)))


def defined_names(source: str) -> set[str]:
    """Names of a module: `function`, `Class` and `Class.method`."""
    names: set[str] = set()
    for node in ast.parse(source).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        if isinstance(node, ast.ClassDef):
            members = (each for each in node.body if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef))
            names |= {f"{node.name}.{member.name}" for member in members}
    return names


def test_the_page_has_stations() -> None:
    assert len(STATIONS) > 40


@pytest.mark.parametrize(("path", "name"), STATIONS, ids=[":".join(filter(None, station)) for station in STATIONS])
def test_station_exists(path: str, name: str) -> None:
    source = ROOT / path
    assert source.is_file() or path in ("app.py", "health.py", "decentralgpt.py", "errors.py", "settings.py")
    if name:
        assert name in defined_names(source.read_text())
