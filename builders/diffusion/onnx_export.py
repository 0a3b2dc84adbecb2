"""Export parts of a pipeline as ONNX with dynamic batch and sizes; large weights go to a file of their own."""

import gc
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from builders.diffusion import pipeline as pipelines
from builders.diffusion.networks import load_part
from builders.diffusion.parts import Multiple, PipelinePart, example_inputs, network_arguments, pipeline_parts

OPSET = 18

MAX_INLINE_WEIGHT_BYTES = 1_800_000_000
"""Larger weights go to a file of their own: protobuf is limited to 2 GB."""

TRACED_SIZES = {"height": 6, "width": 4, "tokens": 11, "patches": 14, "frames": 5}
"""Sizes of the example inputs. They are all different, so that the exporter cannot confuse two dimensions."""


def export(folder: str | Path, outputs: Mapping[str, str], half: bool = False) -> dict[str, dict[str, str]]:
    """Export each part named in `outputs` into the folder there, as `model.onnx` and `model.onnx.data` if it is large.

    `folder` holds the pipeline. `half` exports in fp16, see `networks.load_part`. Returns by part the `exporter` that
    wrote it, `dynamo` or `torchscript`, and for the latter the `reason` why dynamo could not. Raises SystemExit where
    neither can.
    """
    pipeline = pipelines.read(Path(folder))
    return export_parts(pipeline_parts(pipeline), lambda part: load_part(pipeline, part, half=half), outputs)


def export_parts(
    parts: Iterable[PipelinePart], load: Callable[[PipelinePart], Any], outputs: Mapping[str, str]
) -> dict[str, dict[str, str]]:
    """Export each of `parts` that is named in `outputs`, as `export` does. `load` returns the network of a part."""
    report = {}
    for part in parts:
        if part.name not in outputs:
            continue
        print(f"exporting {part.name}", flush=True)  # noqa: T201 - the build reads it
        output = Path(outputs[part.name])
        output.mkdir(parents=True, exist_ok=True)
        report[part.name] = _export(load(part), part, output / "model.onnx")
        gc.collect()
    return report


def _export(network: Any, part: PipelinePart, path: Path) -> dict[str, str]:
    import torch

    inputs = {name: torch.from_numpy(value) for name, value in example_inputs(part, 2, TRACED_SIZES).items()}
    with torch.inference_mode():
        try:
            _by_dynamo(network, part, inputs, path)
            report = {"exporter": "dynamo"}
        except Exception as error:  # PyTorch's exporter raises a dozen unrelated classes
            path.unlink(missing_ok=True)
            reason = _one_line(error)
            print(f"{part.name} is traced instead: {reason}", flush=True)  # noqa: T201
            try:
                _by_tracing(network, part, inputs, path)
            except Exception as other:
                raise SystemExit(
                    f"The {part.name} cannot be exported. The newer exporter: {reason} The older: {_one_line(other)}"
                ) from None
            _merge_weight_files(path)
            report = {"exporter": "torchscript", "reason": reason}
    return report


def _one_line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:400]


def _by_dynamo(network: Any, part: PipelinePart, inputs: dict[str, Any], path: Path) -> None:
    import torch

    dynamic = torch.export.Dim.DYNAMIC
    shapes = {
        port.name: {0: dynamic}
        | {axis: dynamic for axis, size in enumerate(port.shape, 1) if not isinstance(size, int)}
        for port in part.inputs
    }
    size = sum(tensor.numel() * tensor.element_size() for tensor in network.state_dict().values())
    torch.onnx.export(
        network,
        kwargs=network_arguments(inputs),
        f=str(path),
        dynamo=True,
        opset_version=OPSET,
        input_names=list(inputs),
        output_names=[port.name for port in part.outputs],
        dynamic_shapes=network_arguments(shapes),
        external_data=size > MAX_INLINE_WEIGHT_BYTES,
        verbose=False,
    )


def _by_tracing(network: Any, part: PipelinePart, inputs: dict[str, Any], path: Path) -> None:
    import torch

    names = list(inputs)

    class Positional(torch.nn.Module):  # type: ignore[misc]
        """Takes arguments by position, as the tracing exporter passes them."""

        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, *values: Any) -> Any:
            return self.network(**network_arguments(dict(zip(names, values, strict=True))))

    axes = {
        port.name: {0: "batch"}
        | {axis: _axis_name(size) for axis, size in enumerate(port.shape, 1) if not isinstance(size, int)}
        for port in (*part.inputs, *part.outputs)
    }
    torch.onnx.export(
        Positional().eval(),
        tuple(inputs.values()),
        str(path),
        dynamo=False,
        opset_version=OPSET,
        input_names=names,
        output_names=[port.name for port in part.outputs],
        dynamic_axes=axes,
    )


def _axis_name(size: str | Multiple) -> str:
    return size if isinstance(size, str) else f"{size.factor}*{size.name}"


def _merge_weight_files(path: Path) -> None:
    """Rewrite a traced graph with at most one file of weights: the exporter leaves a file for each large weight."""
    import onnx

    graph = onnx.load(str(path))
    for left in path.parent.iterdir():
        left.unlink()
    large = sum(_bytes(tensor) for tensor in graph.graph.initializer) > MAX_INLINE_WEIGHT_BYTES
    onnx.save(graph, str(path), save_as_external_data=large, location="model.onnx.data")


def _bytes(tensor: Any) -> int:
    import onnx

    return int(np.prod(tensor.dims)) * int(onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize)
