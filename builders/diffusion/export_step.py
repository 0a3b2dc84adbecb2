"""Export the parts of a pipeline in a process of its own."""

from pathlib import Path
from typing import Any

from builders import subprocess_step
from builders.diffusion.pipeline import Pipeline, PipelineFolder
from builders.progress import Progress


def export(
    pipeline: Pipeline, outputs: dict[str, Path], progress: Progress, *, half: bool = False
) -> dict[str, dict[str, str]]:
    """Export each part named in `outputs` into its folder, `half` in fp16; return the report of `onnx_export.export`.

    Raises ExportFailed with the end of the exporter's output.
    """
    return run("builders.diffusion.onnx_export:export", pipeline, outputs, progress, half=half)


def run(
    function: str, pipeline: PipelineFolder, outputs: dict[str, Path], progress: Progress, *, half: bool, **more: Any
) -> dict[str, dict[str, str]]:
    """Call an exporter, written `module:name`, with the arguments of `onnx_export.export` and `more` of its own."""
    num_started = 0

    def show(line: str) -> None:
        nonlocal num_started
        if line.startswith("exporting "):
            progress.update(line, num_started / len(outputs))
            num_started += 1

    request = {
        "folder": str(pipeline.folder),
        "outputs": {name: str(folder) for name, folder in outputs.items()},
        "half": half,
        **more,
    }
    report: dict[str, dict[str, str]] = subprocess_step.run(function, request, "The ONNX exporter", show)
    return report
