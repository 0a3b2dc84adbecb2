"""The targets of the families that export ONNX for engines behind a model of ours: which devices and number formats.

`check` refuses a recipe by its table alone, before anything of its source is downloaded.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from builders.errors import UnsupportedModel
from builders.recipe import Precision, Target

Device = Literal["cpu", "cuda"]

CUDA_OPTIONS = {"cudnn_conv_use_max_workspace": "1"}
"""Options of onnxruntime's CUDA provider: convolutions may use as much memory as their fastest algorithm needs."""

CUDA_PARAMETERS = {"cudnn_conv_algo_search": "1", "arena_extend_strategy": "1"}
"""More of them, which NVIDIA's ONNX Runtime backend overwrites with defaults unless they are parameters of the model.

Convolution algorithms are chosen by a heuristic (1) and not by trying all of them for every new size and batch. Memory
grows by what is needed (1) and not to powers of two.
"""

NO_DEVICE: dict[tuple[Target, Device], str] = {
    ("tensorrt", "cpu"): "TensorRT runs on NVIDIA GPUs alone. For a CPU choose the target onnx.",
}


@dataclass(frozen=True, slots=True)
class EngineTargets:
    """The table of one family."""

    models: str
    """The models that the family builds, as refusals name them: `image models`."""
    precisions: Mapping[tuple[Target, Device], tuple[Precision, ...]]

    def check(self, target: Target, device: Device, precision: Precision) -> None:
        """Raise UnsupportedModel, with the reason, if the combination is not built."""
        targets = list(dict.fromkeys(name for name, _ in self.precisions))
        if target not in targets:
            raise UnsupportedModel(
                f"The target {target!r} is not supported for {self.models}; supported: {', '.join(targets)}."
            )
        found = self.precisions.get((target, device))
        if found is None:
            raise UnsupportedModel(f"The target {target} is not built for {device}: {NO_DEVICE[target, device]}")
        if precision not in found:
            hint = " fp16 is for GPUs: add --device cuda." if precision == "fp16" and device == "cpu" else ""
            place = target if device == default_device(target) else f"{target} on {device}"
            raise UnsupportedModel(
                f"For {place}, {self.models} are built in {' or '.join(found)}, not {precision}.{hint}"
            )


def default_device(target: object) -> Device:
    """Return the device of a recipe that names none."""
    return "cpu" if target == "onnx" else "cuda"
