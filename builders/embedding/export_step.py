"""Export a sentence-transformers model in a process of its own."""

from pathlib import Path

from builders import subprocess_step
from builders.recipe import Recipe


def export(checkpoint: Path, recipe: Recipe, folder: Path) -> None:
    """Export the checkpoint as `folder/model.onnx`. Raises ExportFailed with the end of the exporter's output."""
    request = {
        "folder": str(checkpoint),
        "output": str(folder),
        "precision": recipe.precision,
        "plain_attention": recipe.target == "tensorrt",
    }
    subprocess_step.run("builders.embedding.onnx_export:export", request, "The ONNX exporter")
