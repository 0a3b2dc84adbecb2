"""How the exporter of pipelines is run: apart, and ended with the build."""

import json
from pathlib import Path
from typing import Any

from builders import subprocess_step
from builders.diffusion.pipeline import Pipeline
from builders.progress import Progress


def export(pipeline: Pipeline, outputs: dict[str, Path], scratch: Path, progress: Progress) -> dict[str, Any]:
    """Export parts, each into its folder as `model.onnx`; say of each which exporter wrote it. Raises ExportFailed."""
    report = scratch / "exported.json"
    request = {
        "input": str(pipeline.folder),
        "outputs": {name: str(folder) for name, folder in outputs.items()},
        "report": str(report),
    }
    begun = 0

    def heard(line: str) -> None:
        nonlocal begun
        if line.startswith("exporting "):
            progress.update(line, begun / len(outputs))
            begun += 1

    subprocess_step.run(Path(__file__).with_name("export_process.py"), request, heard, "The ONNX exporter")
    found: dict[str, Any] = json.loads(report.read_bytes())
    return found
