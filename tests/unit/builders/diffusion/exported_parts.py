"""Export parts of tiny pipelines in the process of the tests, and each distinct network once."""

import gc
import hashlib
import shutil
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from builders.diffusion import onnx_export
from builders.diffusion.parts import PipelinePart, pipeline_parts
from builders.diffusion.pipeline import PipelineFolder
from builders.progress import Progress

Report = dict[str, dict[str, str]]


class ExportedParts:
    """Replaces a family's `export_step.export`, without a process that imports the libraries again."""

    def __init__(
        self,
        folder: Path,
        parts: Callable[[Any], tuple[PipelinePart, ...]] = pipeline_parts,
        export: Callable[..., Report] = onnx_export.export,
    ) -> None:
        """Keep exports in `folder`. `parts` and `export` are those of the family."""
        self._folder, self._parts, self._export = folder, parts, export
        self._reports: Report = {}

    def export(self, pipeline: PipelineFolder, outputs: dict[str, Path], progress: Progress, **options: bool) -> Report:
        """Export each part named in `outputs` into its folder; return the report of `onnx_export.export`."""
        reports = {}
        for part in self._parts(pipeline):
            if part.name in outputs:
                key = _network_hash(pipeline, part, {name for name, value in options.items() if value})
                if key not in self._reports:
                    with _exporter_settings():
                        report = self._export(pipeline.folder, {part.name: str(self._folder / key)}, **options)
                    self._reports[key] = report[part.name]
                shutil.copytree(self._folder / key, outputs[part.name])
                reports[part.name] = self._reports[key]
        return reports


def _network_hash(pipeline: PipelineFolder, part: PipelinePart, options: set[str]) -> str:
    """Return a hash of all that decides the export of a part: config, weights, tensors, and for CLIP the family."""
    if part.kind not in ("wan", "motion-unet"):  # the networks with an operator of onnxruntime
        options = options - {"fused"}
    family = pipeline.family if part.kind == "clip" else ""
    network = (family, part.kind, part.inputs, part.outputs, part.size_unit, part.vocabulary, sorted(options))
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
