"""Export parts of tiny pipelines in the process of the tests, and each distinct network once."""

import gc
import hashlib
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from builders.diffusion import onnx_export
from builders.diffusion.parts import PipelinePart, pipeline_parts
from builders.diffusion.pipeline import Pipeline
from builders.progress import Progress


class ExportedParts:
    """Replaces `builders.diffusion.export_step.export`, without a process that imports the libraries again."""

    def __init__(self, folder: Path) -> None:
        """Keep exports in `folder`."""
        self._folder = folder
        self._reports: dict[str, dict[str, str]] = {}

    def export(
        self, pipeline: Pipeline, outputs: dict[str, Path], progress: Progress, *, half: bool = False
    ) -> dict[str, dict[str, str]]:
        """Export each part named in `outputs` into its folder; return the report of `onnx_export.export`."""
        reports = {}
        for part in pipeline_parts(pipeline):
            if part.name in outputs:
                key = _network_hash(pipeline, part, half)
                if key not in self._reports:
                    with _exporter_settings():
                        report = onnx_export.export(pipeline.folder, {part.name: str(self._folder / key)}, half)
                    self._reports[key] = report[part.name]
                shutil.copytree(self._folder / key, outputs[part.name])
                reports[part.name] = self._reports[key]
        return reports


def _network_hash(pipeline: Pipeline, part: PipelinePart, half: bool) -> str:
    """Return a hash of all that decides the export of a part: config, weights, tensors, and for CLIP the family."""
    family = pipeline.family if part.kind == "clip" else ""
    network = (family, part.kind, part.inputs, part.outputs, part.size_unit, part.vocabulary, half)
    key = hashlib.sha256(repr(network).encode())
    for path in sorted((pipeline.folder / part.component).iterdir()):
        key.update(path.name.encode() + path.read_bytes())
    return key.hexdigest()


@contextmanager
def _exporter_settings() -> Iterator[None]:
    """Do as the exporter's own process does: ignore warnings, and collect garbage less often."""
    thresholds = gc.get_threshold()
    gc.set_threshold(50_000, 20, 20)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        gc.set_threshold(*thresholds)
