"""The network: windows of a picture in, larger ones out. onnxruntime runs it here, or another model of this Triton."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from backends.serving.execution_providers import CPU, Provider, check_providers, choose_providers
from backends.serving.images import Pixels
from backends.upscaling.options import Options

INPUT, OUTPUT = "image", "upscaled"
"""float32[n, 3, height, width] and float32[n, 3, scale * height, scale * width], RGB from 0 to 1."""

Images = npt.NDArray[np.float32]

_SPIN_MICROSECONDS = "10"
"""Time that an idle thread spins, as in `backends.onnxruntime.session`."""
_GPU_THREADS = 2
"""Scheduler threads of a network on a GPU: one batch computes while the next is cut and the last is pasted."""


class Network(Protocol):
    """Upscales windows of equal size. Several threads may call it at the same time."""

    def upscale(self, windows: Sequence[Pixels]) -> Images:
        """Return float32[n, 3, rows, columns] for windows of uint8[height, width, 3]."""


class Components(Protocol):
    """Calls other models of the same Triton by name, see `backends.serving.bls.TritonComponents`."""

    def run(self, name: str, inputs: Mapping[str, Any], outputs: Sequence[str]) -> Mapping[str, Any]:
        """Return the named outputs. The first dimension of every input and output is the batch."""


class OrtNetwork:
    """The ONNX file that the builder family `upscaling` writes."""

    def __init__(self, folder: Path, num_threads: int, providers: Sequence[Provider] = ((CPU, {}),)) -> None:
        """Load `model.onnx` of a version folder.

        Raises `FileNotFoundError`, `ValueError` if a provider cannot be loaded, or what onnxruntime raises.
        """
        import onnxruntime

        path = folder / "model.onnx"
        if not path.is_file():
            raise FileNotFoundError(f"{path} is missing.")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = num_threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        options.add_session_config_entry("session.intra_op.spin_duration_us", _SPIN_MICROSECONDS)
        # The shapes of windows differ from picture to picture: an arena would keep memory for each of them.
        options.enable_cpu_mem_arena = False
        options.enable_mem_pattern = False
        self._session = onnxruntime.InferenceSession(str(path), options, providers=list(providers))
        check_providers(providers, self._session.get_providers())

    def upscale(self, windows: Sequence[Pixels]) -> Images:
        """Run the network; see `Network.upscale`."""
        (upscaled,) = self._session.run([OUTPUT], {INPUT: _stack(windows)})
        images: Images = upscaled
        return images


class ComponentNetwork:
    """The network as a Triton model of its own, such as a TensorRT plan."""

    def __init__(self, components: Components, name: str) -> None:
        """Call the model `name`. It may be loaded later: the first call is the first to need it."""
        self._components = components
        self._name = name

    def upscale(self, windows: Sequence[Pixels]) -> Images:
        """Call the model; see `Network.upscale`. Raises `EngineFailed` and `Unavailable`."""
        found = self._components.run(self._name, {INPUT: _stack(windows)}, [OUTPUT])[OUTPUT]
        return np.asarray(found, np.float32)


def load_network(
    folder: Path, config: Mapping[str, Any], options: Options, kind: str, device: str, components: type[Components]
) -> OrtNetwork | ComponentNetwork:
    """Return the network. `kind` (`CPU` or `GPU`) and `device` are those of the instance.

    Raises `FileNotFoundError`, `ValueError` with a sentence for people, or what onnxruntime raises.
    """
    if options.network is not None:
        return ComponentNetwork(components(), options.network)
    import onnxruntime

    if kind == "GPU":
        onnxruntime.preload_dlls()  # from NVIDIA's packages, where CUDA and cuDNN are not installed in the system
    providers = choose_providers(config, kind, device, onnxruntime.get_available_providers())
    return OrtNetwork(folder, options.num_threads, providers)


def scheduler_threads(options: Options, kind: str) -> int:
    """Return the number of scheduler threads: on a CPU one run takes all cores."""
    return _GPU_THREADS if kind == "GPU" or options.network is not None else 1


def _stack(windows: Sequence[Pixels]) -> Images:
    pixels = np.stack([window.transpose(2, 0, 1) for window in windows])
    return pixels.astype(np.float32) / np.float32(255)
