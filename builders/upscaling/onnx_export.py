"""Write an upscaling network as ONNX, with any batch, height and width."""

from pathlib import Path
from typing import Any

from builders.upscaling import weights
from builders.upscaling.architectures import recognize

INPUT, OUTPUT = "image", "upscaled"
"""float32[n, 3, height, width] and float32[n, 3, scale * height, scale * width], RGB from 0 to 1."""
OPSET = 18
_TRACED_SHAPE = (2, 3, 20, 24)
"""All sizes are different, so that the exporter cannot confuse two dimensions."""


def export(source: str, output: str, half: bool = False) -> None:
    """Write the network of a file of weights as the ONNX file `output`; `half` computes in fp16.

    Raises BuildError, or what PyTorch's exporter raises.
    """
    import torch

    from builders.upscaling.networks import HalfNetwork, load

    checkpoint = weights.read(Path(source))
    network = load(recognize({name: tuple(tensor.shape) for name, tensor in checkpoint.items()}), checkpoint)
    if half:
        network = HalfNetwork(network).eval()
    batch, height, width = (torch.export.Dim(name) for name in ("batch", "height", "width"))
    with torch.inference_mode():
        torch.onnx.export(
            network,
            (torch.rand(_TRACED_SHAPE),),
            output,
            dynamo=True,
            opset_version=OPSET,
            input_names=[INPUT],
            output_names=[OUTPUT],
            dynamic_shapes=({0: batch, 2: height, 3: width},),
            external_data=False,
            verbose=False,
        )


def copy_onnx(source: str, output: str) -> int:
    """Write an ONNX file with one picture in and one out under our names; return the scale of the network.

    Raises ValueError if its tensors are others: fp32, a batch, 3 channels, any height and width.
    """
    import onnx

    model = onnx.load(source)
    graph = model.graph
    constants = {tensor.name for tensor in graph.initializer}
    inputs = [tensor for tensor in graph.input if tensor.name not in constants]
    if len(inputs) != 1 or len(graph.output) != 1:
        raise ValueError(f"it has {len(inputs)} inputs and {len(graph.output)} outputs, and must have one of each")
    for tensor in (inputs[0], graph.output[0]):
        kind = tensor.type.tensor_type
        dims = [dim.dim_value for dim in kind.shape.dim]
        if kind.elem_type != onnx.TensorProto.FLOAT or len(dims) != 4 or dims[1] not in (0, 3):
            raise ValueError(f"{tensor.name} must be float32[n, 3, height, width]")
    if any(dim.dim_value for axis, dim in enumerate(inputs[0].type.tensor_type.shape.dim) if axis in (2, 3)):
        raise ValueError("its height and width must be dynamic, as tiles at the edges of a picture are smaller")
    _rename(graph, {inputs[0].name: INPUT, graph.output[0].name: OUTPUT})
    onnx.save(model, output)
    return measure_scale(Path(output))


def measure_scale(path: Path) -> int:
    """Return the scale of a network, from two runs. Raises ValueError if width and height differ in it."""
    import numpy as np

    session = open_session(path)
    scales = set()
    for height, width in ((20, 24), (33, 18)):
        made = session.run([OUTPUT], {INPUT: np.zeros((1, 3, height, width), np.float32)})[0].shape
        scales |= {made[2] / height, made[3] / width}
    (scale,) = scales if len(scales) == 1 else (0,)
    if scale < 2 or scale != int(scale):
        raise ValueError(
            f"it enlarges by {', '.join(f'{found:g}' for found in sorted(scales))}, which is no one integer"
        )
    return int(scale)


def open_session(path: Path) -> Any:
    """Return an onnxruntime session of a file, on the CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def _rename(graph: Any, names: dict[str, str]) -> None:
    """Give tensors of a graph other names."""
    for node in graph.node:
        for tensors in (node.input, node.output):
            for number, name in enumerate(tensors):
                tensors[number] = names.get(name, name)
    for tensor in (*graph.input, *graph.output, *graph.value_info):
        tensor.name = names.get(tensor.name, tensor.name)
