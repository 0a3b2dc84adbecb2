"""`make audit`: its report and exit status. A run that compared nothing does not pass."""

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

PATH = Path(__file__).parents[3] / ".ci" / "audit.py"


@pytest.fixture(scope="module")
def audit() -> ModuleType:
    spec = importlib.util.spec_from_file_location("audit", PATH)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def package(name: str, *vulns: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "version": "1.0", "vulns": list(vulns)}


SKIPPED = {"name": "torch", "skip_reason": "Dependency not found on PyPI and could not be audited: torch (2.0)"}
WRONG: dict[str, Any] = {"id": "PYSEC-1", "aliases": ["CVE-1"], "fix_versions": ["1.1"]}


def test_the_audit_fails_if_no_database_knows_a_package(audit: ModuleType) -> None:
    reports: tuple[dict[str, Any] | None, ...] = (
        None,
        {"dependencies": []},
        {"dependencies": [SKIPPED, SKIPPED]},
    )
    for report in reports:
        status, message = audit.summarize(report)
        assert status == audit.NO_DATABASE != 0
        assert "No advisory database could be reached" in message and "not one of the pinned packages" in message


def test_known_vulnerabilities_are_listed_and_fail_the_audit(audit: ModuleType) -> None:
    report = {"dependencies": [package("a", WRONG, {"id": "PYSEC-2"}), package("b"), SKIPPED]}
    status, message = audit.summarize(report)
    assert status == 1
    assert message.splitlines() == [
        "a 1.0: PYSEC-1 (CVE-1), mended in 1.1",
        "a 1.0: PYSEC-2, not mended yet",
        "2 pinned packages were compared, 2 vulnerabilities are known.",
        "The database does not know 1: torch.",
    ]


def test_an_audit_without_findings_passes(audit: ModuleType) -> None:
    assert audit.summarize({"dependencies": [package("a"), SKIPPED]})[0] == 0
    assert audit.summarize({"dependencies": [package("a")]}) == (
        0,
        "1 pinned packages were compared, 0 vulnerabilities are known.",
    )


def test_databases_are_tried_until_one_answers(
    audit: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    answers: dict[str, Any] = {"pypi": {"dependencies": [SKIPPED]}, "osv": {"dependencies": [package("a")]}}
    monkeypatch.setattr(audit, "run_audit", lambda database, constraints: answers[database])
    assert audit.main() == 0
    answers["osv"] = None
    assert audit.main() == audit.NO_DATABASE
    assert capsys.readouterr().out.count("No advisory database") == 1


def test_the_output_of_the_audit_program_is_parsed(
    audit: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    program = tmp_path / "program.py"
    program.write_text(f"print({json.dumps(json.dumps({'dependencies': []}))})")
    assert audit.run_audit("pypi", tmp_path, (sys.executable, str(program))) == {"dependencies": []}
    program.write_text("import sys; sys.exit('the network is unreachable')")
    assert audit.run_audit("osv", tmp_path, (sys.executable, str(program))) is None
    assert "osv: the network is unreachable" in capsys.readouterr().err
