"""The second half of the tests leaves out exactly what the first half ran."""

import re
from pathlib import Path

from tests import conftest

MAKEFILE = Path(__file__).parents[2] / "Makefile"


def test_after_check_leaves_out_what_check_runs() -> None:
    makefile = MAKEFILE.read_text()
    found = re.search(r"^FAST_TESTS = \$\(BIN\)/pytest ([^\"\\]+) \\\n *-m \"([^\"]+)\"", makefile, re.M)
    assert found
    assert re.search(r"^check:(.*\n\t.*)*\n\t\$\(FAST_TESTS\) \$\(ARGS\)$", makefile, re.M)
    assert re.search(r"^test:.*\n\t\$\(if .*\$\(FAST_TESTS\)\)\n.*--after-check\)$", makefile, re.M)
    assert {f"{folder}/" for folder in found[1].split()} == set(conftest._CHECKED)
    assert {mark.removeprefix("not ") for mark in found[2].split(" and ")} == set(conftest._SLOW)
