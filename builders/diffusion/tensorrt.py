"""The target `tensorrt`: compile the exported parts to plans, with TensorRT's Python API or with `trtexec`.

A plan works on one kind of GPU and with one version of TensorRT only, so build it on the machine that serves it.
"""

import importlib.util
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from builders import subprocess_step
from builders.diffusion.parts import PipelinePart, example_inputs
from builders.diffusion.pipeline import Pipeline, num_t5_tokens
from builders.diffusion.triton_config import max_part_batch, size_options
from builders.errors import ExportFailed, UnsupportedModel, VerificationFailed
from builders.progress import Progress
from builders.recipe import Recipe

MAX_DIFFERENCE = {"fp32": 1e-2, "fp16": 5e-2}
"""Largest allowed difference of one number between plan and ONNX, relative to the ONNX's largest number.

TensorRT computes most of fp32 in TF32.
"""

InputShapes = dict[str, tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class OptimizationProfile:
    """The minimum, optimum and maximum of each dynamic size of a plan."""

    batch: tuple[int, int, int]
    pixels: tuple[int, int, int]
    """Side of an image, in pixels."""
    vae_scale_factor: int
    patch_size: int
    num_tokens: int
    """Tokens that the text encoders return together, which is a fixed number."""

    def shapes(self, part: PipelinePart, which: int) -> InputShapes:
        """Return the shape of each input of a part; `which` is 0 for the minimum, 1 the optimum, 2 the maximum."""
        pixels = self.pixels[which]
        side = pixels if part.kind == "vae-encoder" else pixels // self.vae_scale_factor
        varying = {
            "height": side,
            "width": side,
            "tokens": self.num_tokens,
            "patches": (pixels // (self.vae_scale_factor * self.patch_size)) ** 2,
        }
        return {
            port.name: (self.batch[which], *(size if isinstance(size, int) else varying[size] for size in port.shape))
            for port in part.inputs
        }


def check() -> None:
    """Raise UnsupportedModel if this machine has no GPU or no TensorRT."""
    if not any(Path("/dev").glob("nvidia[0-9]*")):
        raise UnsupportedModel("TensorRT plans are built on the GPU that runs them, and this machine has none.")
    if importlib.util.find_spec("tensorrt") is None and shutil.which("trtexec") is None:
        raise UnsupportedModel(
            "Building TensorRT plans needs the Python package tensorrt or the command trtexec, and neither is here."
        )


def optimization_profile(recipe: Recipe, pipeline: Pipeline) -> OptimizationProfile:
    """Return the profile of a recipe's plans. Raises RecipeError if its sizes do not suit the model."""
    options = size_options(recipe, pipeline)
    sides = sorted(side for size in options.get("sizes", ()) for side in size)
    least, most = (sides[0], sides[-1]) if sides else (options["min_size"], options["max_size"])
    tokens = pipeline.num_tokens(pipeline.text_encoders[0])
    if pipeline.family == "flux":
        tokens = num_t5_tokens(pipeline)
    elif pipeline.family == "stable-diffusion-3":
        tokens += num_t5_tokens(pipeline)
    usual = max(least, min(most, max(options["default_size"])))
    batch = max_part_batch(recipe)
    return OptimizationProfile(
        (1, min(2, batch), batch), (least, usual, most), pipeline.vae_scale_factor, pipeline.patch_size, tokens
    )


def build_engine(
    part: PipelinePart, onnx: Path, folder: Path, profile: OptimizationProfile, recipe: Recipe, progress: Progress
) -> None:
    """Compile an ONNX file to `folder/model.plan`, and compare the two. Raises ExportFailed, VerificationFailed."""
    folder.mkdir(parents=True, exist_ok=True)
    plan = folder / "model.plan"
    progress.update(f"building the plan of {part.name}")
    if importlib.util.find_spec("tensorrt") is not None:
        _by_python(part, onnx, plan, profile, recipe.precision == "fp16")
        _verify(part, onnx, plan, profile, recipe.precision, progress)
    else:
        _by_trtexec(part, onnx, plan, profile, recipe.precision == "fp16")
        progress.note(f"The plan of {part.name} was not compared: that needs the Python package tensorrt.")


def _by_python(part: PipelinePart, onnx: Path, plan: Path, profile: OptimizationProfile, half: bool) -> None:
    import tensorrt

    logger = tensorrt.Logger(tensorrt.Logger.ERROR)
    builder = tensorrt.Builder(logger)
    network = builder.create_network(0)
    parser = tensorrt.OnnxParser(network, logger)
    if not parser.parse_from_file(str(onnx)):
        errors = "; ".join(str(parser.get_error(number)) for number in range(parser.num_errors))
        raise ExportFailed(f"TensorRT cannot read the exported {part.name}: {errors}")
    config = builder.create_builder_config()
    if half:
        if not hasattr(tensorrt.BuilderFlag, "FP16"):
            raise ExportFailed(
                f"TensorRT {tensorrt.__version__} takes the precision from the ONNX, which is fp32: build fp32, or use "
                "TensorRT 10 for fp16."
            )
        config.set_flag(tensorrt.BuilderFlag.FP16)
    trt_profile = builder.create_optimization_profile()
    least, usual, most = (profile.shapes(part, which) for which in range(3))
    for name in least:
        trt_profile.set_shape(name, least[name], usual[name], most[name])
    config.add_optimization_profile(trt_profile)
    built = builder.build_serialized_network(network, config)
    if built is None:
        raise ExportFailed(f"TensorRT cannot build a plan of {part.name} on this GPU; its log says why.")
    plan.write_bytes(built)


def trtexec_command(part: PipelinePart, onnx: Path, plan: Path, profile: OptimizationProfile, half: bool) -> list[str]:
    """Return the command that builds a plan; `half` allows fp16."""
    arguments = []
    for option, which in (("minShapes", 0), ("optShapes", 1), ("maxShapes", 2)):
        shapes = profile.shapes(part, which).items()
        listed = ",".join(f"{name}:{'x'.join(str(size) for size in shape)}" for name, shape in shapes)
        arguments.append(f"--{option}={listed}")
    more = ["--fp16"] if half else []
    return ["trtexec", f"--onnx={onnx}", f"--saveEngine={plan}", *arguments, *more, "--skipInference"]


def _by_trtexec(part: PipelinePart, onnx: Path, plan: Path, profile: OptimizationProfile, half: bool) -> None:
    command = trtexec_command(part, onnx, plan, profile, half)
    status, output = subprocess_step.run_command(command)
    if status != 0 or not plan.is_file():
        raise ExportFailed(f"trtexec cannot build a plan of {part.name}. The end of what it said:\n{output}")


def _verify(
    part: PipelinePart, onnx: Path, plan: Path, profile: OptimizationProfile, precision: str, progress: Progress
) -> None:
    """Compare plan and ONNX at the smallest size, with one row and with two. Raises VerificationFailed."""
    import numpy as np
    import tensorrt
    import torch

    from builders.diffusion.reference_pipeline import open_session

    if not torch.cuda.is_available():
        progress.note(f"The plan of {part.name} was not compared: this PyTorch does not know the GPU.")
        return
    runtime = tensorrt.Runtime(tensorrt.Logger(tensorrt.Logger.ERROR))
    engine = runtime.deserialize_cuda_engine(plan.read_bytes())
    context = engine.create_execution_context()
    reference = open_session(onnx)
    pixels = profile.pixels[0]
    side = pixels if part.kind == "vae-encoder" else pixels // profile.vae_scale_factor
    varying = {"height": side // part.size_unit, "width": side // part.size_unit, "tokens": profile.num_tokens}
    varying["patches"] = (pixels // (profile.vae_scale_factor * profile.patch_size)) ** 2
    for batch in (1, min(2, profile.batch[2])):
        inputs = example_inputs(part, batch, varying, seed=batch)
        held: dict[str, Any] = {name: torch.from_numpy(value).cuda() for name, value in inputs.items()}
        for name, tensor in held.items():
            context.set_input_shape(name, tuple(tensor.shape))
        names = [port.name for port in part.outputs]
        for name in names:
            held[name] = torch.empty(tuple(context.get_tensor_shape(name)), dtype=torch.float32, device="cuda")
        for name, tensor in held.items():
            context.set_tensor_address(name, tensor.data_ptr())
        context.execute_async_v3(torch.cuda.current_stream().cuda_stream)
        torch.cuda.synchronize()
        for name, theirs in zip(names, reference.run(names, inputs), strict=True):
            difference = float(np.abs(held[name].cpu().numpy() - theirs).max() / max(float(np.abs(theirs).max()), 1e-6))
            if not difference <= MAX_DIFFERENCE[precision]:
                raise VerificationFailed(
                    f"The plan of {part.name} does not answer as its ONNX does, so nothing was installed: {name} is "
                    f"{difference:.3g} of its largest number away (at most {MAX_DIFFERENCE[precision]:g})."
                )
