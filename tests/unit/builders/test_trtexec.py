"""Plans by the command `trtexec`, here a program of that name, where the Python package tensorrt is missing."""

import sys
from pathlib import Path

import pytest

from builders import tensorrt_plan
from builders.errors import ExportFailed, UnsupportedModel

SCRIPT = """
import pathlib, sys
options = dict(argument.partition("=")[::2] for argument in sys.argv[1:])
if options["--maxShapes"] != "x:8x4,lengths:8":
    sys.exit("[E] the largest shapes are " + options["--maxShapes"])
pathlib.Path(options["--saveEngine"]).write_bytes(pathlib.Path(options["--onnx"]).read_bytes() + b" as a plan")
"""
PROFILE: tensorrt_plan.Profile = {"x": ((1, 4), (2, 4), (8, 4)), "lengths": ((1,), (2,), (8,))}


@pytest.fixture(autouse=True)
def trtexec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a program on the path that compiles for one profile, and let Python have no package tensorrt."""
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "trtexec"
    program.write_text(f"#!{sys.executable}\n{SCRIPT}")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=":")
    monkeypatch.setattr(tensorrt_plan, "has_python_package", lambda: False)
    (tmp_path / "model.onnx").write_bytes(b"a graph")


def test_trtexec_writes_the_plan(tmp_path: Path) -> None:
    plan = tmp_path / "model" / "1" / "model.plan"
    tensorrt_plan.build("network", tmp_path / "model.onnx", plan, PROFILE)
    assert plan.read_bytes() == b"a graph as a plan"


def test_what_trtexec_says_of_a_failure_is_quoted(tmp_path: Path) -> None:
    wrong: tensorrt_plan.Profile = {"x": ((1, 4), (2, 4), (9, 4))}
    with pytest.raises(ExportFailed, match=r"trtexec cannot build a plan of network(.|\n)*largest shapes are x:9x4"):
        tensorrt_plan.build("network", tmp_path / "model.onnx", tmp_path / "model.plan", wrong)


def test_a_machine_with_trtexec_needs_a_gpu_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "dev").mkdir()
    monkeypatch.setattr(tensorrt_plan, "DEVICES", tmp_path / "dev")
    with pytest.raises(UnsupportedModel, match="this machine has none"):
        tensorrt_plan.check()
    (tmp_path / "dev" / "nvidia0").touch()
    tensorrt_plan.check()
