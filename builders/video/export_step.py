"""Export the parts of a video pipeline in a process of its own."""

from pathlib import Path

from builders.diffusion import export_step
from builders.progress import Progress
from builders.video.pipeline import VideoPipeline


def export(
    pipeline: VideoPipeline, outputs: dict[str, Path], progress: Progress, *, half: bool = False, fused: bool = False
) -> dict[str, dict[str, str]]:
    """Export each part named in `outputs`, as `builders.diffusion.export_step.export` does.

    `fused` is that of `builders.video.onnx_export`.
    """
    return export_step.run("builders.video.onnx_export:export", pipeline, outputs, progress, half=half, fused=fused)
