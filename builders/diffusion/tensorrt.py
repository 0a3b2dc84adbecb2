"""The target `tensorrt`: plans of the exported parts, by TensorRT's Python API or by `trtexec`, on the GPU that serves.

A plan belongs to one kind of GPU and one version of TensorRT: build where you serve.
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
"""Of one number of a plan, over the largest number that the ONNX gives for the same input; fp32 is mostly TF32."""

InputShapes = dict[str, tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class OptimizationProfile:
    """What a plan takes: the least, the usual and the most of each varying size."""

    batch: tuple[int, int, int]
    pixels: tuple[int, int, int]
    """Of either side of a picture."""
    vae_scale_factor: int
    patch_size: int
    num_tokens: int
    """What the text encoders give together; it does not vary."""

    def shapes(self, part: PipelinePart, which: int) -> InputShapes:
        """The shape of each input of a part; `which` is 0 for the least, 1 for the usual, 2 for the most."""
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
    """Refuse where no plan can be built. Raises UnsupportedModel."""
    if not any(Path("/dev").glob("nvidia[0-9]*")):
        raise UnsupportedModel("TensorRT plans are built on the GPU that runs them, and this machine has none.")
    if importlib.util.find_spec("tensorrt") is None and shutil.which("trtexec") is None:
        raise UnsupportedModel(
            "Building TensorRT plans needs the Python package tensorrt or the command trtexec, and neither is here."
        )


def optimization_profile(recipe: Recipe, pipeline: Pipeline) -> OptimizationProfile:
    """The limits of a recipe's plans. Raises RecipeError where its sizes do not suit the model."""
    drawn = size_options(recipe, pipeline)
    sides = sorted(side for size in drawn.get("sizes", ()) for side in size)
    least, most = (sides[0], sides[-1]) if sides else (drawn["min_size"], drawn["max_size"])
    tokens = pipeline.num_tokens(pipeline.text_encoders[0])
    if pipeline.family == "flux":
        tokens = num_t5_tokens(pipeline)
    elif pipeline.family == "stable-diffusion-3":
        tokens += num_t5_tokens(pipeline)
    usual = max(least, min(most, max(drawn["default_size"])))
    batch = max_part_batch(recipe)
    return OptimizationProfile(
        (1, min(2, batch), batch), (least, usual, most), pipeline.vae_scale_factor, pipeline.patch_size, tokens
    )


def build_engine(
    part: PipelinePart, onnx: Path, folder: Path, limits: OptimizationProfile, recipe: Recipe, progress: Progress
) -> None:
    """Build `folder/model.plan` of an ONNX file, and compare both. Raises ExportFailed, VerificationFailed."""
    folder.mkdir(parents=True, exist_ok=True)
    plan = folder / "model.plan"
    progress.update(f"building the plan of {part.name}")
    if importlib.util.find_spec("tensorrt") is not None:
        _by_python(part, onnx, plan, limits, recipe.precision == "fp16")
        _verify(part, onnx, plan, limits, recipe.precision, progress)
    else:
        _by_trtexec(part, onnx, plan, limits, recipe.precision == "fp16")
        progress.note(f"The plan of {part.name} was not compared: that needs the Python package tensorrt.")


def _by_python(part: PipelinePart, onnx: Path, plan: Path, limits: OptimizationProfile, half: bool) -> None:
    import tensorrt

    logger = tensorrt.Logger(tensorrt.Logger.ERROR)
    builder = tensorrt.Builder(logger)
    network = builder.create_network(0)
    parser = tensorrt.OnnxParser(network, logger)
    if not parser.parse_from_file(str(onnx)):
        said = "; ".join(str(parser.get_error(number)) for number in range(parser.num_errors))
        raise ExportFailed(f"TensorRT cannot read the exported {part.name}: {said}")
    config = builder.create_builder_config()
    if half:
        if not hasattr(tensorrt.BuilderFlag, "FP16"):
            raise ExportFailed(
                f"TensorRT {tensorrt.__version__} takes the precision from the ONNX, which is fp32: build fp32, or use "
                "TensorRT 10 for fp16."
            )
        config.set_flag(tensorrt.BuilderFlag.FP16)
    profile = builder.create_optimization_profile()
    least, usual, most = (limits.shapes(part, which) for which in range(3))
    for name in least:
        profile.set_shape(name, least[name], usual[name], most[name])
    config.add_optimization_profile(profile)
    built = builder.build_serialized_network(network, config)
    if built is None:
        raise ExportFailed(f"TensorRT cannot build a plan of {part.name} on this GPU; its log says why.")
    plan.write_bytes(built)


def trtexec_command(part: PipelinePart, onnx: Path, plan: Path, limits: OptimizationProfile, half: bool) -> list[str]:
    """The command that builds a plan."""
    said = []
    for option, which in (("minShapes", 0), ("optShapes", 1), ("maxShapes", 2)):
        shapes = limits.shapes(part, which).items()
        listed = ",".join(f"{name}:{'x'.join(str(size) for size in shape)}" for name, shape in shapes)
        said.append(f"--{option}={listed}")
    more = ["--fp16"] if half else []
    return ["trtexec", f"--onnx={onnx}", f"--saveEngine={plan}", *said, *more, "--skipInference"]


def _by_trtexec(part: PipelinePart, onnx: Path, plan: Path, limits: OptimizationProfile, half: bool) -> None:
    command = trtexec_command(part, onnx, plan, limits, half)
    status, output = subprocess_step.run_command(command)
    if status != 0 or not plan.is_file():
        raise ExportFailed(f"trtexec cannot build a plan of {part.name}. The end of what it said:\n{output}")


def _verify(
    part: PipelinePart, onnx: Path, plan: Path, limits: OptimizationProfile, precision: str, progress: Progress
) -> None:
    """Run the plan and the ONNX side by side at the smallest size, one row and two."""
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
    pixels = limits.pixels[0]
    side = pixels if part.kind == "vae-encoder" else pixels // limits.vae_scale_factor
    varying = {"height": side // part.size_unit, "width": side // part.size_unit, "tokens": limits.num_tokens}
    varying["patches"] = (pixels // (limits.vae_scale_factor * limits.patch_size)) ** 2
    for batch in (1, min(2, limits.batch[2])):
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
