"""Export the networks that find faces to ONNX, and compare each with PyTorch."""

from pathlib import Path
from typing import Any

OPSET = 18
INPUT = "image"
OUTPUTS = {
    "pnet": ("scores", "boxes"),
    "rnet": ("scores", "boxes"),
    "onet": ("scores", "boxes", "points"),
    "landmarks": ("points",),
}
"""Outputs of each network, in order. The input of each is `image`."""
_EXAMPLES = {
    "pnet": ((1, 3, 33, 46), (1, 3, 120, 77)),
    "rnet": ((2, 3, 24, 24), (5, 3, 24, 24)),
    "onet": ((2, 3, 48, 48), (3, 3, 48, 48)),
    "landmarks": ((2, 3, 112, 112), (4, 3, 112, 112)),
}
"""Shapes of the input of each network: the one that is exported, and another one that is compared."""


def export(checkpoint: str, output: str) -> dict[str, float]:
    """Export the weights in the folder `checkpoint` as `output/<network>.onnx`.

    Returns the largest difference from PyTorch of an output of each network. Raises what PyTorch's exporter raises.
    """
    from builders.face_swap.networks import load_cascade, load_landmarks

    source, target = Path(checkpoint), Path(output)
    target.mkdir(parents=True, exist_ok=True)
    landmarks = load_landmarks(source / "landmarks.json", source / "landmarks.bin")
    networks = {**load_cascade(source), "landmarks": landmarks}
    return {name: _export(name, network, target / f"{name}.onnx") for name, network in networks.items()}


def _export(name: str, network: Any, path: Path) -> float:
    import torch

    first, second = _EXAMPLES[name]
    auto = torch.export.Dim.AUTO
    dynamic = {2: auto, 3: auto} if name == "pnet" else {0: auto}
    with torch.inference_mode():
        torch.onnx.export(
            network,
            (_example(name, first),),
            str(path),
            dynamo=True,
            opset_version=OPSET,
            input_names=[INPUT],
            output_names=list(OUTPUTS[name]),
            dynamic_shapes=(dynamic,),
            external_data=False,
            verbose=False,
        )
        return max(_difference(network, path, _example(name, shape)) for shape in (first, second))


def _example(name: str, shape: tuple[int, ...]) -> Any:
    import torch

    noise = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    return noise * 255 if name == "landmarks" else noise * 2 - 1


def _difference(network: Any, path: Path, image: Any) -> float:
    import numpy as np
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    ours = session.run(None, {INPUT: image.numpy()})
    theirs = network(image)
    theirs = theirs if isinstance(theirs, tuple) else (theirs,)
    return max(float(np.abs(one - other.numpy()).max()) for one, other in zip(ours, theirs, strict=True))
