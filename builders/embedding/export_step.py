"""How the exporter of sentence-transformers models is run: apart, and ended with the build."""

import json
import os
import subprocess
import sys
from pathlib import Path

from builders.errors import ExportFailed
from builders.recipe import Recipe


def export(checkpoint: Path, recipe: Recipe, folder: Path) -> None:
    """Export a checkpoint into `folder` as `model.onnx`. Raises ExportFailed with the end of what the exporter said."""
    request = {
        "parent": os.getpid(),
        "input": str(checkpoint),
        "output": str(folder),
        "precision": recipe.precision,
    }
    script = Path(__file__).with_name("export_process.py")
    process = subprocess.Popen(
        [sys.executable, "-I", "-u", str(script), json.dumps(request)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env={**os.environ, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"},
        start_new_session=True,  # Ctrl-C reaches the build, which then ends this process.
    )
    try:
        said, _ = process.communicate()
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    if process.returncode != 0:
        how = f"ended with signal {-process.returncode}" if process.returncode < 0 else "failed"
        end = "\n".join([line[:500] for line in said.splitlines() if line.strip()][-12:])
        raise ExportFailed(f"The ONNX exporter {how}. The end of what it said:\n{end}")
