"""`tritonic doctor --gpu`: the GPUs, the targets that this machine can build and serve, and the GPU of each engine."""

import importlib.metadata
import importlib.util
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.machinery import PathFinder
from pathlib import Path

from builders import gpu as gpus
from builders import manifest
from builders.gpu import Gpu, GpuQueryFailed
from builders.llm.quantization import quantize
from tritonic.findings import Finding
from tritonic.wheel import MODEL_ENVIRONMENT

GIGABYTE = 1024**3


@dataclass(frozen=True, slots=True)
class Need:
    """Something that a target needs, beside a GPU."""

    is_there: Callable[[], bool]
    missing: str
    """Says what is missing, and how to get it."""


def _model_path() -> list[str]:
    """Return the folders in which the models of the embedded Triton find their packages."""
    environment = os.environ.get(MODEL_ENVIRONMENT)
    return sys.path if not environment else [str(path) for path in Path(environment).glob("lib/python*/site-packages")]


def _module(name: str, how: str) -> Need:
    return Need(lambda: PathFinder.find_spec(name, _model_path()) is not None, f"the Python package {name} ({how})")


def _distribution(name: str, how: str) -> Need:
    return Need(
        lambda: any(importlib.metadata.distributions(name=name, path=_model_path())), f"the package {name} ({how})"
    )


def _runs_cuda(release: float) -> bool:
    """Return whether the driver runs this release of CUDA, or does not tell which ones it runs."""
    version = gpus.cuda_version()
    return version is None or float(version) >= release


def _program(name: str, how: str) -> Need:
    return Need(lambda: shutil.which(name) is not None, f"the command {name} ({how})")


MODELOPT = Need(quantize.has_modelopt, f"ModelOpt (see {quantize.PYTHON_VARIABLE} in docs/gpu.md)")
ONNXRUNTIME = _distribution("onnxruntime-gpu", f"in an environment that {MODEL_ENVIRONMENT} names, see docs/gpu.md")
CUDA_13 = Need(lambda: _runs_cuda(13.0), "a driver that runs CUDA 13, for which onnxruntime-gpu 1.31 is compiled")
VLLM = _module("vllm", f"in an environment that {MODEL_ENVIRONMENT} names, or the profile vllm of the containers")
LLM_API = _module("tensorrt_llm", "the profile trtllm of the containers; no package of pip")
TRTLLM_BUILD = _program("trtllm-build", "in NGC's TensorRT-LLM containers up to 26.07")
TRTLLM_BACKEND = Need(
    lambda: Path("/opt/tritonserver/backends/tensorrtllm").is_dir(),
    "Triton's backend tensorrtllm (in NGC's TensorRT-LLM containers up to 26.07)",
)
TENSORRT = Need(
    lambda: importlib.util.find_spec("tensorrt") is not None or shutil.which("trtexec") is not None,
    "the Python package tensorrt or the command trtexec (in NGC's containers)",
)

TRITON_BACKENDS = Path("/opt/tritonserver/backends")
TENSORRT_BACKEND = Need(
    lambda: (TRITON_BACKENDS / "tensorrt").is_dir(), "Triton's backend tensorrt (in NGC's Triton containers)"
)
ONNX_BACKEND = Need(
    lambda: (TRITON_BACKENDS / "onnxruntime").is_dir() or ONNXRUNTIME.is_there(),
    f"Triton's backend onnxruntime (in NGC's Triton containers) or {ONNXRUNTIME.missing}",
)


@dataclass(frozen=True, slots=True)
class TargetNeeds:
    """The requirements of building and of serving a target."""

    target: str
    capability: str
    """Smallest compute capability that serves it."""
    to_build: tuple[Need, ...]
    to_serve: tuple[Need, ...]
    compiles: bool = False
    """The GPU that serves it must build it too."""


TARGETS = (
    TargetNeeds("chat --target onnx --device cuda", "7.5", (), (ONNXRUNTIME, CUDA_13)),
    TargetNeeds("chat --target vllm", "7.0", (), (VLLM,)),
    TargetNeeds("chat --target llmapi", "8.0", (), (LLM_API,)),
    TargetNeeds("chat --target tensorrt_llm", "8.0", (MODELOPT, TRTLLM_BUILD), (TRTLLM_BACKEND,), compiles=True),
    TargetNeeds("image --target onnx --device cuda", "7.5", (), (ONNX_BACKEND,)),
    TargetNeeds("image --target tensorrt", "7.5", (TENSORRT,), (TENSORRT_BACKEND,), compiles=True),
    TargetNeeds("embedding --target onnx --device cuda", "7.5", (), (ONNXRUNTIME, CUDA_13)),
    TargetNeeds("embedding --target tensorrt", "7.5", (TENSORRT,), (TENSORRT_BACKEND,), compiles=True),
)
QUANTIZATIONS = (("fp8", "8.9"), ("nvfp4", "10.0"), ("int4_awq", "8.0"), ("w4a8_awq", "8.9"), ("int8_sq", "8.0"))
"""Formats of ModelOpt, with the smallest compute capability that computes in them."""

ENGINE_FILES = ("*.engine", "*.plan")


def diagnose_gpus(repository: Path) -> Iterator[Finding]:
    """Yield the findings about GPUs, targets and the engine files in a model repository."""
    try:
        found = gpus.find_gpus()
    except GpuQueryFailed as error:
        remedy = "Install a recent driver of NVIDIA, and give containers the GPU (--gpus all)."
        yield Finding("GPU", "missing", str(error), remedy)
        found = []
    for gpu in found:
        yield _gpu(gpu)
    if found:
        yield Finding("CUDA", "good", f"the driver {found[0].driver} runs CUDA up to {gpus.cuda_version() or '?'}")
    for needs in TARGETS:
        yield _target(needs, found)
    yield _quantizations(found)
    yield from _engine_files(repository, found)


def _gpu(gpu: Gpu) -> Finding:
    memory = "memory unknown"
    if gpu.free_memory is not None and gpu.total_memory is not None:
        memory = f"{gpu.free_memory / GIGABYTE:.1f} of {gpu.total_memory / GIGABYTE:.1f} GB free"
    capability = gpu.compute_capability or "unknown (the driver is too old to tell)"
    return Finding(f"GPU {gpu.index}", "good", f"{gpu.name}, compute capability {capability}, {memory}")


def _target(needs: TargetNeeds, found: Sequence[Gpu]) -> Finding:
    """Say whether this machine builds and serves a target, and what it lacks."""
    lacks_gpu = []
    if not any(gpu.is_at_least(needs.capability) for gpu in found):
        lacks_gpu.append(f"a GPU of compute capability {needs.capability} or higher")
    build = [need.missing for need in needs.to_build if not need.is_there()]
    if needs.compiles:
        build += lacks_gpu
    serve = lacks_gpu + [need.missing for need in needs.to_serve if not need.is_there()]
    detail = "; ".join(
        f"can{'not' if lacks else ''} be {what} here" for what, lacks in (("built", build), ("served", serve))
    )
    missing = list(dict.fromkeys(build + serve))
    return Finding(
        f"`tritonic build {needs.target}`",
        "note" if missing else "good",
        detail,
        f"Missing: {'; '.join(missing)}." if missing else "",
    )


def _quantizations(found: Sequence[Gpu]) -> Finding:
    served = [name for name, capability in QUANTIZATIONS if any(gpu.is_at_least(capability) for gpu in found)]
    detail = f"these GPUs compute in {', '.join(served)}" if served else "no GPU here computes in any of them"
    lacks = [] if MODELOPT.is_there() else [MODELOPT.missing]
    if lacks:
        return Finding("`--quantization`", "note", f"{detail}; cannot be built here", f"Missing: {'; '.join(lacks)}.")
    return Finding("`--quantization`", "good" if served else "note", detail)


def _engine_files(repository: Path, found: Sequence[Gpu]) -> Iterator[Finding]:
    """Say of each model with engine files whether they belong to a GPU of this machine."""
    here = {gpu.compute_capability for gpu in found}
    for model, built_for in _engine_models(repository):
        if built_for is None:
            yield Finding(
                f"Engine {model.name}",
                "note",
                "its BUILD.json does not record the compute capability that it was compiled for",
                "Rebuild it on the GPU that serves it: tritonic build … --force.",
            )
        elif here & set(built_for):
            yield Finding(f"Engine {model.name}", "good", f"compiled for {', '.join(built_for)}, which is here")
        else:
            there = ", ".join(sorted(capability for capability in here if capability)) or "no GPU"
            yield Finding(
                f"Engine {model.name}",
                "missing" if found else "note",
                f"compiled for compute capability {', '.join(built_for)}; here is {there}",
                "An engine runs on the kind of GPU that compiled it: rebuild it here with --force.",
            )


def _engine_models(repository: Path) -> Iterator[tuple[Path, list[str] | None]]:
    """Yield the models of a repository that have engine files, with the compute capabilities of their build."""
    if not repository.is_dir():
        return
    recorded: dict[str, list[str] | None] = {}
    for folder in sorted(path for path in repository.iterdir() if path.is_dir()):
        record = manifest.read(folder)
        if record is not None:
            built_for = record.get("compute_capabilities")
            for name in (folder.name, *record.get("parts", {})):
                recorded[name] = built_for if isinstance(built_for, list) and built_for else None
    for folder in sorted(path for path in repository.iterdir() if path.is_dir()):
        if any(next(folder.glob(f"*/{pattern}"), None) for pattern in ENGINE_FILES):
            yield folder, recorded.get(folder.name)
