"""A frontend with a tiny pipeline of any family. Its components run in PyTorch, without export and without Triton."""

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np

from backends.diffusion.image_frontend import ImageFrontend
from backends.diffusion.loading import load_pipeline
from backends.diffusion.request import ImageRequest
from backends.diffusion.stats import Stats
from backends.serving.errors import GenerationError
from builders.diffusion import networks, pipeline, pipeline_json
from builders.diffusion.parts import PipelinePart, pipeline_parts
from tests.fakes.pipelines import make_pipeline

NAME = "tiny"


class TorchComponents:
    """Implements `backends.diffusion.components.Components` by the builder's networks. Calls wait at `gate`."""

    def __init__(self, parts: Iterable[PipelinePart], load: Callable[[PipelinePart], Any]) -> None:
        """`load` returns the network of a part."""
        self._parts: dict[str, PipelinePart] = {f"{NAME}-{part.name}": part for part in parts}
        self._networks = {name: load(part) for name, part in self._parts.items()}
        self._lock = threading.Lock()
        self.gate = threading.Event()
        self.gate.set()
        self.calls: list[tuple[str, int]] = []
        self.begun = threading.Condition()

    def run(self, name: str, inputs: Mapping[str, Any], outputs: Sequence[str]) -> dict[str, Any]:
        import torch

        with self.begun:
            self.calls.append((name.removeprefix(f"{NAME}-"), len(next(iter(inputs.values())))))
            self.begun.notify_all()
        assert self.gate.wait(60)
        part = self._parts[name]
        assert set(inputs) == {port.name for port in part.inputs}
        for port in part.inputs:
            assert inputs[port.name].dtype == (np.int64 if port.type == "INT64" else np.float32), port.name
        with self._lock, torch.inference_mode():
            tensors = {key: torch.from_numpy(np.ascontiguousarray(value)) for key, value in inputs.items()}
            caches = [tensors.pop(port.name) for port in part.inputs if port.name.startswith("cache_")]
            results = (
                self._networks[name](*tensors.values(), tuple(caches)) if caches else self._networks[name](**tensors)
            )
        results = results if isinstance(results, tuple) else (results,)
        by_name = {port.name: value.numpy() for port, value in zip(part.outputs, results, strict=True)}
        return {output: by_name[output] for output in outputs}

    def batches(self, name: str) -> list[int]:
        """Return the sizes of a component's batches."""
        return [size for called, size in self.calls if called == name]

    def wait_for_call(self, name: str, count: int = 1) -> None:
        with self.begun:
            assert self.begun.wait_for(lambda: len(self.batches(name)) >= count, 60)


@dataclass
class BaseRecordingSender:
    """Records what the senders of images and of videos have in common: progress, an error, and the end."""

    disconnected: bool = False
    progress: list[float] = field(default_factory=list)
    error: GenerationError | None = None
    ends: int = 0
    ended: threading.Event = field(default_factory=threading.Event)

    def is_cancelled(self) -> bool:
        return self.disconnected

    def send_progress(self, fraction: float) -> None:
        assert not self.ends
        self.progress.append(fraction)

    def fail(self, error: GenerationError) -> None:
        self.error = error
        self._end()

    def _end(self) -> None:
        self.ends += 1
        self.ended.set()

    def outcome(self, seconds: float = 60) -> Self:
        assert self.ended.wait(seconds)
        assert self.ends == 1
        if self.error:
            raise self.error
        return self


@dataclass
class RecordingSender(BaseRecordingSender):
    """A response sender that records the responses of a request for images."""

    previews: list[tuple[int, int, bytes]] = field(default_factory=list)
    files: dict[int, bytes] = field(default_factory=dict)
    seeds: dict[int, int] = field(default_factory=dict)

    def send_preview(self, image: bytes, index: int, number: int) -> None:
        assert not self.ends
        self.previews.append((index, number, image))

    def send_image(self, image: bytes, seed: int, index: int, *, final: bool) -> None:
        assert not self.ends
        self.files[index], self.seeds[index] = image, seed
        if final:
            self._end()

    def pixels(self, index: int = 0) -> Any:
        import io

        from PIL import Image

        return np.asarray(Image.open(io.BytesIO(self.files[index])).convert("RGB"))


@dataclass(frozen=True)
class TinyPipeline:
    """A frontend with a tiny pipeline, and the folder of the pipeline."""

    frontend: ImageFrontend
    stats: Stats
    components: TorchComponents
    folder: Path

    def ask(self, prompt: str = "a red cat", **options: Any) -> RecordingSender:
        sender = RecordingSender()
        self.frontend.add_request(ImageRequest(prompt=prompt, **options), sender)
        return sender


@contextmanager
def open_tiny_pipeline(folder: Path, kind: str, scheduler: Any = None, **parameters: object) -> Iterator[TinyPipeline]:
    """Write a tiny pipeline under `folder` and open a frontend for it; `parameters` are those of `config.pbtxt`."""
    pipeline_folder = make_pipeline(folder / "pipeline", kind, scheduler=scheduler)
    (folder / "1").mkdir()
    pipeline_json.write(pipeline.read(pipeline_folder), NAME, folder / "1")
    source = pipeline.read(pipeline_folder)
    components = TorchComponents(pipeline_parts(source), lambda part: networks.load_part(source, part))
    values = {"default_size": "[32, 32]", "default_steps": "4", "max_steps": "50", "max_size": "256", **parameters}
    frontend, stats = load_pipeline(
        folder / "1", {name: {"string_value": str(value)} for name, value in values.items()}, components
    )
    assert isinstance(frontend, ImageFrontend)
    try:
        yield TinyPipeline(frontend, stats, components, pipeline_folder)
    finally:
        components.gate.set()
        frontend.close()


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "the condition did not become true"
        time.sleep(0.01)
