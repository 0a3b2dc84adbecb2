"""Run an exported decoder on plain onnxruntime, one sequence at a time, to read its logits."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from builders.engine_targets import Device


def providers(device: Device) -> list[str]:
    """Return the execution providers of onnxruntime that can run an engine for `device` here, by preference."""
    import onnxruntime

    cuda = ["CUDAExecutionProvider"] if device == "cuda" else []
    return [name for name in cuda if name in onnxruntime.get_available_providers()] + ["CPUExecutionProvider"]


class OnnxDecoder:
    """Runs one sequence through an exported decoder, for verification. Serving has a faster engine of its own."""

    def __init__(self, folder: Path, threads: int = 0, device: Device = "cpu") -> None:
        """Load the engine in `folder`, whose file `genai_config.json` names. `threads` 0 means one per core.

        An engine for `cuda` runs on the CPU where onnxruntime has no CUDA; `provider` tells which of them it is.
        """
        import onnxruntime

        config = json.loads((folder / "genai_config.json").read_bytes())["model"]["decoder"]
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(
            str(folder / config["filename"]), options, providers=providers(device)
        )
        self.provider = str(self._session.get_providers()[0])
        """The execution provider of onnxruntime that runs the engine."""
        self._inputs = {value.name: value for value in self._session.get_inputs()}
        self._outputs = [value.name for value in self._session.get_outputs()]
        self._past = [name for name in self._inputs if name.startswith("past_key_values.")]
        self._types: dict[str, Any] = {"tensor(float)": np.float32, "tensor(float16)": np.float16}
        self._size = (config["num_key_value_heads"], config["head_size"])
        # An engine whose input is embedding vectors comes with its embedding matrix, [vocabulary, hidden size].
        self._embedding = np.load(folder / "embedding.npy", mmap_mode="r") if "inputs_embeds" in self._inputs else None
        self.reset()

    def reset(self) -> None:
        """Start a new sequence with an empty KV cache."""
        heads, size = self._size
        self._cache = {name: np.zeros((1, heads, 0, size), self._types[self._inputs[name].type]) for name in self._past}
        self._length = 0

    def step(self, tokens: list[int]) -> npt.NDArray[np.float32]:
        """Append tokens; return the logits [vocabulary] of the next one."""
        last: npt.NDArray[np.float32] = self.logits(tokens)[-1]
        return last

    def logits(self, tokens: list[int]) -> npt.NDArray[np.float32]:
        """Append tokens; return logits [positions, vocabulary]: one position, or all if the export computes all."""
        if self._embedding is None:
            return self._run("input_ids", np.array([tokens], np.int64))
        return self.logits_after(self._embedding[tokens])

    def logits_after(self, vectors: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Append embedding vectors [tokens, hidden size]; return logits as `logits` does."""
        return self._run("inputs_embeds", vectors[None].astype(self._types[self._inputs["inputs_embeds"].type]))

    def _run(self, name: str, values: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        start, self._length = self._length, self._length + values.shape[1]
        feeds: dict[str, Any] = {name: values, **self._cache}
        if "attention_mask" in self._inputs:
            feeds["attention_mask"] = np.ones((1, self._length), np.int64)
        if "position_ids" in self._inputs:
            feeds["position_ids"] = np.arange(start, self._length, dtype=np.int64)[None]
        results = dict(zip(self._outputs, self._session.run(None, feeds), strict=True))
        self._cache = {name: results[name.replace("past_key_values.", "present.")] for name in self._past}
        logits: npt.NDArray[np.float32] = results["logits"][0].astype(np.float32)
        return logits
