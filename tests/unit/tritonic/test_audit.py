"""What `make audit` says: above all, that nothing was compared is not that nothing was found."""

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

PATH = Path(__file__).parents[3] / ".ci" / "audit.py"


@pytest.fixture(scope="module")
def audit() -> ModuleType:
    spec = importlib.util.spec_from_file_location("audit", PATH)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def package(name: str, *vulns: dict[str, object]) -> dict[str, object]:
    return {"name": name, "version": "1.0", "vulns": list(vulns)}


SKIPPED = {"name": "torch", "skip_reason": "Dependency not found on PyPI and could not be audited: torch (2.0)"}
WRONG = {"id": "PYSEC-1", "aliases": ["CVE-1"], "fix_versions": ["1.1"]}


def test_a_database_that_knows_no_package_is_none(audit: ModuleType) -> None:
    for found in (None, {"dependencies": []}, {"dependencies": [SKIPPED, SKIPPED]}):
        status, said = audit.judged(found)
        assert status == audit.NO_DATABASE != 0
        assert "No advisory database could be reached" in said and "not one of the pinned packages" in said


def test_what_is_known_is_named_and_fails(audit: ModuleType) -> None:
    found = {"dependencies": [package("a", WRONG, {"id": "PYSEC-2"}), package("b"), SKIPPED]}
    status, said = audit.judged(found)
    assert status == 1
    assert said.splitlines() == [
        "a 1.0: PYSEC-1 (CVE-1), mended in 1.1",
        "a 1.0: PYSEC-2, not mended yet",
        "2 pinned packages were compared, 2 vulnerabilities are known.",
        "The database does not know 1: torch.",
    ]


def test_nothing_known_is_well(audit: ModuleType) -> None:
    assert audit.judged({"dependencies": [package("a"), SKIPPED]})[0] == 0
    assert audit.judged({"dependencies": [package("a")]}) == (
        0,
        "1 pinned packages were compared, 0 vulnerabilities are known.",
    )


def test_each_database_is_asked_until_one_answers(
    audit: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    answers = {"pypi": {"dependencies": [SKIPPED]}, "osv": {"dependencies": [package("a")]}}
    monkeypatch.setattr(audit, "asked", lambda database, constraints: answers[database])
    assert audit.main() == 0
    answers["osv"] = None
    assert audit.main() == audit.NO_DATABASE
    assert capsys.readouterr().out.count("No advisory database") == 1


def test_what_the_program_says_is_read(audit: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    program = tmp_path / "program.py"
    program.write_text(f"print({json.dumps(json.dumps({'dependencies': []}))})")
    assert audit.asked("pypi", tmp_path, (sys.executable, str(program))) == {"dependencies": []}
    program.write_text("import sys; sys.exit('the network is unreachable')")
    assert audit.asked("osv", tmp_path, (sys.executable, str(program))) is None
    assert "osv: the network is unreachable" in capsys.readouterr().err
