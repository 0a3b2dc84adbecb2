"""Two exporters: what the newer one cannot write, the older one does, and where neither can, both say why."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from builders.diffusion import onnx_export, pipeline
from builders.diffusion.parts import pipeline_parts
from builders.diffusion.verify import verify_part

Pipes = Callable[[str], Path]


def refuse(*_: Any) -> None:
    raise RuntimeError("no\nsuch operator")


@pytest.mark.filterwarnings("ignore")
def test_the_older_exporter_writes_what_the_newer_cannot(
    pipes: Pipes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx_export, "_by_dynamo", refuse)
    read = pipeline.read(pipes("flux"))
    wanted = {part.name: part for part in pipeline_parts(read)}["text-encoder-2"]
    report = onnx_export.export(read.folder, {wanted.name: str(tmp_path / "1")})
    assert report == {wanted.name: {"exporter": "torchscript", "reason": "RuntimeError: no such operator"}}
    assert [path.name for path in (tmp_path / "1").iterdir()] == ["model.onnx"]
    assert verify_part(read, wanted, tmp_path / "1" / "model.onnx").difference < 1e-5


def test_where_neither_can_both_are_heard(pipes: Pipes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_export, "_by_dynamo", refuse)
    monkeypatch.setattr(onnx_export, "_by_tracing", refuse)
    with pytest.raises(SystemExit, match=r"denoiser cannot be exported\. The newer exporter: .* The older: Runtime"):
        onnx_export.export(pipes("flux"), {"denoiser": str(tmp_path / "1")})


def test_large_weights_lie_beside_the_graph(pipes: Pipes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_export, "MAX_INLINE_WEIGHT_BYTES", 1000)
    read = pipeline.read(pipes("flux"))
    wanted = {part.name: part for part in pipeline_parts(read)}["text-encoder"]
    onnx_export.export(read.folder, {wanted.name: str(tmp_path / "1")})
    assert {path.name for path in (tmp_path / "1").iterdir()} == {"model.onnx", "model.onnx.data"}
    assert verify_part(read, wanted, tmp_path / "1" / "model.onnx").difference < 1e-5
