"""Compile an ONNX file to a TensorRT plan, with TensorRT's Python API or with `trtexec`, and compare the two.

Networks are strongly typed: a plan computes in the number formats of its ONNX file. TensorRT 10 can do this and
TensorRT 11 does nothing else. A plan works on one kind of GPU and with one version of TensorRT only, so build it on the
machine that serves it.
"""

import importlib.util
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from builders import subprocess_step
from builders.errors import ExportFailed, UnsupportedModel, VerificationFailed
from builders.recipe import Precision

FILE_NAME = "model.plan"

MAX_DIFFERENCE: dict[Precision, float] = {"fp32": 1e-2, "fp16": 5e-2}
"""Largest allowed difference of one number between plan and ONNX, relative to the ONNX's largest number.

TensorRT computes most of fp32 in TF32.
"""

OPTIMIZATION_LEVEL: int | None = None
"""How long TensorRT looks for fast kernels, from 0 to 5; None is its own default."""

DEVICES = Path("/dev")

Shape = tuple[int, ...]
Profile = Mapping[str, tuple[Shape, Shape, Shape]]
"""The smallest, usual and largest shape of each input."""


def check() -> None:
    """Raise UnsupportedModel if this machine has no GPU or no TensorRT."""
    if not any(DEVICES.glob("nvidia[0-9]*")):
        raise UnsupportedModel("TensorRT plans are built on the GPU that runs them, and this machine has none.")
    if importlib.util.find_spec("tensorrt") is None and shutil.which("trtexec") is None:
        raise UnsupportedModel(
            "Building TensorRT plans needs the Python package tensorrt or the command trtexec, and neither is here."
        )


def build(name: str, onnx: Path, plan: Path, profile: Profile) -> None:
    """Compile an ONNX file to `plan`. `name` says in errors what the network is. Raises ExportFailed."""
    plan.parent.mkdir(parents=True, exist_ok=True)
    if has_python_package():
        plan.write_bytes(compile_by_python(name, onnx, profile))
    else:
        _compile_by_trtexec(name, onnx, plan, profile)


def has_python_package() -> bool:
    """Return whether the Python package tensorrt is here; without it, trtexec compiles and nothing is compared."""
    return importlib.util.find_spec("tensorrt") is not None


def compile_by_python(name: str, onnx: Path, profile: Profile) -> bytes:
    """Compile an ONNX file with TensorRT's Python API, and return the plan. Raises ExportFailed."""
    import tensorrt

    logger = _make_logger(tensorrt)
    builder = tensorrt.Builder(logger)
    # TensorRT 11 has strongly typed networks alone, and ignores the flag.
    strongly_typed = getattr(tensorrt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    network = builder.create_network(0 if strongly_typed is None else 1 << int(strongly_typed))
    parser = tensorrt.OnnxParser(network, logger)
    if not parser.parse_from_file(str(onnx)):
        faults = "; ".join(str(parser.get_error(number)) for number in range(parser.num_errors))
        raise ExportFailed(f"TensorRT cannot read the exported {name}: {faults}")
    config = builder.create_builder_config()
    if OPTIMIZATION_LEVEL is not None:
        config.builder_optimization_level = OPTIMIZATION_LEVEL
    shapes = builder.create_optimization_profile()
    for input_name, (least, usual, most) in profile.items():
        shapes.set_shape(input_name, least, usual, most)
    config.add_optimization_profile(shapes)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise ExportFailed(f"TensorRT cannot build a plan of {name}. {logger.summary()}")
    return bytes(plan)


def _make_logger(tensorrt: Any) -> Any:
    """Return a logger of TensorRT that keeps errors: `build_serialized_network` reports them in no other way."""

    class Logger(tensorrt.ILogger):  # type: ignore[misc]  # TensorRT's classes are not known to mypy
        """Keeps the errors."""

        def __init__(self) -> None:
            super().__init__()
            self.errors: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            """Keep a message, if it is an error."""
            if severity in (tensorrt.ILogger.ERROR, tensorrt.ILogger.INTERNAL_ERROR):
                self.errors.append(" ".join(message.split()))

        def summary(self) -> str:
            """Return the errors as text for people."""
            return f"Its log: {' '.join(self.errors)[:2000]}" if self.errors else "Its log does not say why."

    return Logger()


def trtexec_command(onnx: Path, plan: Path, profile: Profile) -> list[str]:
    """Return the command that compiles an ONNX file to a plan."""
    arguments = []
    for option, which in (("minShapes", 0), ("optShapes", 1), ("maxShapes", 2)):
        listed = ",".join(f"{name}:{'x'.join(map(str, shapes[which]))}" for name, shapes in profile.items())
        arguments.append(f"--{option}={listed}")
    return ["trtexec", f"--onnx={onnx}", f"--saveEngine={plan}", *arguments, "--stronglyTyped", "--skipInference"]


def _compile_by_trtexec(name: str, onnx: Path, plan: Path, profile: Profile) -> None:
    status, output = subprocess_step.run_command(trtexec_command(onnx, plan, profile))
    if status != 0 or not plan.is_file():
        raise ExportFailed(f"trtexec cannot build a plan of {name}. The end of what it said:\n{output}")


def compare(name: str, onnx: Path, plan: Path, batches: Iterable[Mapping[str, Any]], precision: Precision) -> bool:
    """Run a plan and its ONNX file on the same inputs; return False if this PyTorch cannot use the GPU.

    Raises VerificationFailed if a number of the plan is further away than `MAX_DIFFERENCE`.
    """
    import numpy as np
    import onnxruntime
    import tensorrt
    import torch

    if not torch.cuda.is_available():
        return False
    runtime = tensorrt.Runtime(tensorrt.Logger(tensorrt.Logger.ERROR))
    engine = runtime.deserialize_cuda_engine(plan.read_bytes())
    context = engine.create_execution_context()
    reference = onnxruntime.InferenceSession(str(onnx), providers=["CPUExecutionProvider"])
    names = [output.name for output in reference.get_outputs()]
    for inputs in batches:
        held: dict[str, Any] = {key: torch.from_numpy(value).cuda() for key, value in inputs.items()}
        for key, tensor in held.items():
            context.set_input_shape(key, tuple(tensor.shape))
        for key in names:
            held[key] = torch.empty(tuple(context.get_tensor_shape(key)), dtype=torch.float32, device="cuda")
        for key, tensor in held.items():
            context.set_tensor_address(key, tensor.data_ptr())
        context.execute_async_v3(torch.cuda.current_stream().cuda_stream)
        torch.cuda.synchronize()
        for key, theirs in zip(names, reference.run(names, dict(inputs)), strict=True):
            difference = float(np.abs(held[key].cpu().numpy() - theirs).max() / max(float(np.abs(theirs).max()), 1e-6))
            if not difference <= MAX_DIFFERENCE[precision]:
                raise VerificationFailed(
                    f"The plan of {name} does not answer as its ONNX does, so nothing was installed: {key} is "
                    f"{difference:.3g} of its largest number away (at most {MAX_DIFFERENCE[precision]:g})."
                )
    return True
