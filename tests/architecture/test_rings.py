"""What continuous integration leaves out of the second half is what it ran in the first."""

import re
from pathlib import Path

from tests import conftest

MAKEFILE = Path(__file__).parents[2] / "Makefile"


def test_after_check_leaves_out_what_check_runs() -> None:
    found = re.search(r"^check:.*?^\t\$\(BIN\)/pytest ([^\"]+) -m \"([^\"]+)\"", MAKEFILE.read_text(), re.M | re.S)
    assert found
    assert {f"{folder}/" for folder in found[1].split()} == set(conftest._CHECKED)
    assert {mark.removeprefix("not ") for mark in found[2].split(" and ")} == set(conftest._SLOW)
