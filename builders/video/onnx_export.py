"""Export parts of a video pipeline as ONNX with dynamic batch and sizes."""

from collections.abc import Mapping
from pathlib import Path

from builders.diffusion import onnx_export
from builders.video.networks import load_part
from builders.video.parts import pipeline_parts
from builders.video.read_pipeline import read


def export(
    folder: str | Path, outputs: Mapping[str, str], half: bool = False, fused: bool = False
) -> dict[str, dict[str, str]]:
    """Export each part named in `outputs`, as `builders.diffusion.onnx_export.export` does.

    `fused` writes the denoiser's attention as an operator of onnxruntime, which TensorRT does not have.
    """
    pipeline = read(Path(folder))
    return onnx_export.export_parts(
        pipeline_parts(pipeline),
        lambda part: load_part(pipeline, part, half=half, rewritten=True, fused=fused),
        outputs,
    )
