"""The encoder and the decoder on onnxruntime."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from backends.transcription.cross_cache import CrossCache
from backends.transcription.log_mel import Floats
from backends.transcription.model_config import ModelConfig
from backends.transcription.self_cache import Array, SelfCache, Tensor, attention_mask

Ids = npt.NDArray[np.int64]


class Networks(Protocol):
    """The networks of a checkpoint. One thread calls them."""

    def to_tensor(self, array: Array) -> Tensor:
        """Return an array as a tensor, without copying it."""

    def encode(self, mel: Floats, cross: CrossCache, first: int) -> None:
        """Encode float32[m, mels, frames] into the slots of `cross` from `first` on."""

    def decode(
        self, ids: Ids, positions: Ids, counts: Sequence[int], past: SelfCache | None, cross: CrossCache, first: int
    ) -> tuple[Floats, SelfCache]:
        """Read the tokens int64[n, t] of n rows, whose slots of `cross` begin at `first`.

        Row i reads `counts[i]` tokens, which stand at the right. Returns the logits after the last, float32[n,
        vocabulary], and the cache of all tokens read.
        """

    def align(self, ids: Ids, cross: CrossCache, slot: int) -> Floats:
        """Read the tokens int64[t] of one window at once.

        Returns the attention of the alignment heads, float32[heads, t, positions].
        """


class OrtNetworks:
    """The ONNX files that the builder family `transcription` writes."""

    def __init__(self, folder: Path, config: ModelConfig, threads: int) -> None:
        """Load `encoder.onnx`, `decoder.onnx` and, for word times, `decoder_align.onnx` of a version folder.

        Raises `FileNotFoundError`, or what onnxruntime raises.
        """
        self._config = config
        self._encoder = _session(folder / "encoder.onnx", threads)
        self._decoder = _session(folder / "decoder.onnx", threads)
        self._aligner = _session(folder / "decoder_align.onnx", threads)
        # The activations of the encoder take hundreds of megabytes, which would stay after each call.
        self._shrinking = ort.RunOptions()
        self._shrinking.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
        layers = range(config.num_layers)
        self._cross_names = [(f"cross_key_{layer}", f"cross_value_{layer}") for layer in layers]
        self._past_names = [(f"past_key_{layer}", f"past_value_{layer}") for layer in layers]
        self._present_names = [(f"present_key_{layer}", f"present_value_{layer}") for layer in layers]

    def to_tensor(self, array: Array) -> Tensor:
        """Return an array as an `OrtValue` that shares its memory."""
        tensor: Tensor = ort.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(array))
        return tensor

    def encode(self, mel: Floats, cross: CrossCache, first: int) -> None:
        """Encode into the memory of the slots; see `Networks.encode`."""
        binding = self._encoder.io_binding()
        mel = np.ascontiguousarray(mel, np.float32)
        _bind_input(binding, "mel", mel)
        for names, arrays in zip(self._cross_names, cross.views(first, len(mel)), strict=True):
            for name, array in zip(names, arrays, strict=True):
                binding.bind_output(name, "cpu", 0, np.float32, array.shape, array.ctypes.data)
        self._encoder.run_with_iobinding(binding, self._shrinking)

    def decode(
        self, ids: Ids, positions: Ids, counts: Sequence[int], past: SelfCache | None, cross: CrossCache, first: int
    ) -> tuple[Floats, SelfCache]:
        """Run the decoder; see `Networks.decode`."""
        num_rows = len(ids)
        valid = past.valid if past else np.zeros((num_rows, 0), bool)
        binding = self._decoder.io_binding()
        inputs = self._inputs(ids, positions, attention_mask(valid, counts))
        self._bind_inputs(binding, inputs, past, cross, first, num_rows)
        binding.bind_output("logits", "cpu")
        for names in self._present_names:
            for name in names:
                binding.bind_output(name, "cpu")
        self._decoder.run_with_iobinding(binding)
        logits, *presents = binding.get_outputs()
        new = np.arange(ids.shape[1]) >= ids.shape[1] - np.array(counts)[:, None]
        cache = SelfCache(presents[0::2], presents[1::2], np.concatenate([valid, new], axis=1))
        return np.array(logits.numpy()[:, -1]), cache

    def align(self, ids: Ids, cross: CrossCache, slot: int) -> Floats:
        """Run the decoder that returns attention; see `Networks.align`."""
        count = len(ids)
        mask = attention_mask(np.zeros((1, 0), bool), [count])
        binding = self._aligner.io_binding()
        inputs = self._inputs(ids[None], np.arange(count, dtype=np.int64)[None], mask)
        self._bind_inputs(binding, inputs, None, cross, slot, 1)
        binding.bind_output("alignment", "cpu")
        self._aligner.run_with_iobinding(binding)
        attention: Floats = binding.get_outputs()[0].numpy()[0]
        return attention

    def _inputs(self, ids: Ids, positions: Ids, mask: Floats) -> dict[str, Array]:
        return {
            "input_ids": np.ascontiguousarray(ids, np.int64),
            "positions": np.ascontiguousarray(positions, np.int64),
            "mask": mask,
        }

    def _bind_inputs(
        self, binding: Any, inputs: dict[str, Array], past: SelfCache | None, cross: CrossCache, first: int, count: int
    ) -> None:
        for name, array in inputs.items():
            _bind_input(binding, name, array)
        for layer, (key, value) in enumerate(self._past_names):
            if past:
                binding.bind_ortvalue_input(key, past.keys[layer])
                binding.bind_ortvalue_input(value, past.values[layer])
            else:
                heads, size = self._config.num_heads, self._config.head_size
                binding.bind_ortvalue_input(key, self.to_tensor(np.zeros((count, heads, size, 0), np.float32)))
                binding.bind_ortvalue_input(value, self.to_tensor(np.zeros((count, heads, 0, size), np.float32)))
        for names, arrays in zip(self._cross_names, cross.views(first, count), strict=True):
            for name, array in zip(names, arrays, strict=True):
                _bind_input(binding, name, array)


def _bind_input(binding: Any, name: str, array: Array) -> None:
    """Bind an array without copying it. The array must live until the session has run."""
    binding.bind_input(name, "cpu", 0, array.dtype, array.shape, array.ctypes.data)


def _session(path: Path, threads: int) -> ort.InferenceSession:
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing.")
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # onnxruntime would keep a memory pattern for each set of shapes, and the shapes change with every step.
    options.enable_mem_pattern = False
    options.log_severity_level = 3
    # Threads that spin between two operators take the cores from everything else on the machine.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
