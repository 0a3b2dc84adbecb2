"""The fallback from PyTorch's newer exporter to the older one, and the error if both fail."""

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
def test_the_tracing_exporter_is_the_fallback(pipes: Pipes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_export, "_by_dynamo", refuse)
    read = pipeline.read(pipes("flux"))
    part = {part.name: part for part in pipeline_parts(read)}["text-encoder-2"]
    report = onnx_export.export(read.folder, {part.name: str(tmp_path / "1")})
    assert report == {part.name: {"exporter": "torchscript", "reason": "RuntimeError: no such operator"}}
    assert [path.name for path in (tmp_path / "1").iterdir()] == ["model.onnx"]
    assert verify_part(read, part, tmp_path / "1" / "model.onnx").difference < 1e-5


def test_the_error_quotes_both_exporters(pipes: Pipes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_export, "_by_dynamo", refuse)
    monkeypatch.setattr(onnx_export, "_by_tracing", refuse)
    with pytest.raises(SystemExit, match=r"denoiser cannot be exported\. The newer exporter: .* The older: Runtime"):
        onnx_export.export(pipes("flux"), {"denoiser": str(tmp_path / "1")})


def test_large_weights_go_to_a_file_of_their_own(pipes: Pipes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_export, "MAX_INLINE_WEIGHT_BYTES", 1000)
    read = pipeline.read(pipes("flux"))
    part = {part.name: part for part in pipeline_parts(read)}["text-encoder"]
    onnx_export.export(read.folder, {part.name: str(tmp_path / "1")})
    assert {path.name for path in (tmp_path / "1").iterdir()} == {"model.onnx", "model.onnx.data"}
    assert verify_part(read, part, tmp_path / "1" / "model.onnx").difference < 1e-5
