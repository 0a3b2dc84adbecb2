"""`make constraints` merges new versions into constraints.txt."""

import importlib.util
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType

import pytest

from builders.llm.quantization.quantize import PACKAGES, REMEDY

ROOT = Path(__file__).parents[3]
TEXT = """# Every version.
annotated-types==0.8.0
jsonschema_rs==0.60.3
numpy==1.26.4  # no newer one: Triton
Zope.event==6.2
"""


@pytest.fixture(scope="module")
def constraints() -> ModuleType:
    spec = importlib.util.spec_from_file_location("constraints", ROOT / ".ci" / "constraints.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses need it there
    spec.loader.exec_module(module)
    return module


def test_only_versions_change(constraints: ModuleType) -> None:
    resolved = {"annotated-types": "0.9", "jsonschema-rs": "0.60.3", "numpy": "1.26.4", "zope-event": "7.0+cpu"}
    result = constraints.merge(TEXT, resolved)
    assert result.text == TEXT.replace("0.8.0", "0.9").replace("6.2", "7.0")
    assert result.changes == ["annotated-types 0.8.0 -> 0.9", "Zope.event 6.2 -> 7.0"]
    assert result.unneeded == []


def test_deliberate_pins_stay_and_constrain_pip(constraints: ModuleType) -> None:
    result = constraints.merge(TEXT, {"numpy": "2.4.0"})
    assert result.text == TEXT and result.changes == []
    assert constraints.deliberate_pins(TEXT) == "numpy==1.26.4\n"


def test_new_packages_stand_in_order_and_unneeded_ones_stay(constraints: ModuleType) -> None:
    result = constraints.merge(TEXT, {"zzz": "1", "Kiwi_Solver": "1.5", "aaa": "2", "numpy": "1.26.4"})
    assert [line.split("==")[0] for line in result.text.splitlines()[1:]] == [
        "aaa",
        "annotated-types",
        "jsonschema_rs",
        "Kiwi_Solver",
        "numpy",
        "Zope.event",
        "zzz",
    ]
    assert result.changes == ["aaa 2 is new", "Kiwi_Solver 1.5 is new", "zzz 1 is new"]
    assert result.unneeded == ["annotated-types", "jsonschema_rs", "Zope.event"]


def test_unknown_lines_are_refused(constraints: ModuleType) -> None:
    for line in ("numpy<2", "--hash=sha256:0", "-r other.txt"):
        with pytest.raises(ValueError, match="Neither a pin nor a comment"):
            constraints.merge(TEXT + line, {})


def test_the_project_and_packages_of_every_environment_are_not_pinned(constraints: ModuleType) -> None:
    installs = [{"metadata": {"name": name, "version": "1.0"}} for name in ("numpy", "tritonic", "setuptools")]
    assert constraints.resolved_versions({"install": installs}) == {"numpy": "1.0"}


def test_the_present_file_can_be_parsed(constraints: ModuleType) -> None:
    text = (ROOT / "constraints.txt").read_text()
    assert constraints.merge(text, {}).text == text
    assert {line.split("==")[0] for line in constraints.deliberate_pins(text).splitlines()} >= {"numpy", "torch"}


def test_every_extra_is_resolved_or_left_out_for_a_reason(constraints: ModuleType) -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert [*constraints.EXTRAS.split(","), *constraints.UNPINNED_EXTRAS] == list(extras)
    assert all(constraints.UNPINNED_EXTRAS.values())


def test_the_command_that_installs_modelopt_has_the_versions_of_the_extra() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert sorted(PACKAGES.split()) == sorted(extras["quantization"])
    assert PACKAGES in REMEDY


@pytest.mark.parametrize("dry", [True, False])
def test_the_command_prints_the_changes(
    constraints: ModuleType,
    dry: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = tmp_path / "constraints.txt"
    path.write_text(TEXT)
    monkeypatch.setattr(constraints, "CONSTRAINTS", path)
    monkeypatch.setattr(constraints, "resolve", lambda text: {"annotated-types": "0.9", "numpy": "1.26.4"})
    assert constraints.main(["--dry-run"] if dry else []) == 0
    output = capsys.readouterr().out
    assert output.startswith(
        "annotated-types 0.8.0 -> 0.9\nNot needed under this Python, and left in place: jsonschema_rs"
    )
    assert path.read_text() == (TEXT if dry else TEXT.replace("0.8.0", "0.9"))


def test_a_failure_of_pip_changes_nothing(constraints: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(text: str) -> None:
        raise subprocess.CalledProcessError(3, "pip")

    monkeypatch.setattr(constraints, "resolve", fails)
    before = (ROOT / "constraints.txt").read_bytes()
    assert constraints.main([]) == 3
    assert (ROOT / "constraints.txt").read_bytes() == before
