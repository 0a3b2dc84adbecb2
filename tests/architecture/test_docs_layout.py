"""The prose of the documents wraps at 120 columns. Tables, images and code may be wider."""

from pathlib import Path

import pytest

from tests.architecture.source_tree import ROOT

MAX_COLUMNS = 120
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


def long_lines(text: str) -> list[str]:
    found, in_code = [], False
    for number, line in enumerate(text.splitlines(), 1):
        in_code ^= line.lstrip().startswith("```")
        is_prose = not in_code and not line.lstrip().startswith(("|", "!["))
        if is_prose and len(line) > MAX_COLUMNS:
            found.append(f"{number}: {line[:60]}")
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_prose_wraps(page: Path) -> None:
    assert long_lines(page.read_text()) == []


def test_long_prose_is_found_and_tables_and_code_are_not() -> None:
    wide = "x" * 121
    assert long_lines(f"short\n{wide}\n| {wide}\n```\n{wide}\n```\n- {wide}") == [f"2: {'x' * 60}", f"7: - {'x' * 58}"]
