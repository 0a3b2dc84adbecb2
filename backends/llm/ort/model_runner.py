"""The forward pass of an exported decoder on onnxruntime."""

import logging
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from backends.llm.batching.model_runner import Logits, SavedKV
from backends.llm.engine import TokenIds
from backends.llm.ort.chunk_calibration import ChunkSizes, calibrate_chunk_sizes
from backends.llm.ort.decoder_config import DecoderConfig
from backends.llm.ort.kv_cache import KVCache
from backends.llm.system_memory import available_memory
from backends.llm.vision.feature_cache import Embeddings

_DTYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16}
# Threads that spin a little between two operators answer faster by a quarter than ones that sleep. On a quiet machine
# 100 microseconds gain a tenth over 10 at one stream and nothing at more; on a busy one they cost a fifth more CPU a
# token at four streams, and then a third of the tokens.
_SPIN_MICROSECONDS = "10"
# With less there is no use in serving a model at all.
_MIN_CONTEXT_TOKENS = 128

_log = logging.getLogger(__name__)


class OrtModelRunner:
    """`backends.llm.batching.model_runner.ModelRunner` over GroupQueryAttention with shared past and present buffers.

    Past and present are bound to the same memory, so that a step writes one token a row and copies nothing. The mask
    says how much of each row counts; onnxruntime takes lengths from it.
    """

    def __init__(
        self,
        files: DecoderConfig,
        *,
        max_rows: int,
        context_length: int,
        threads: int,
        kv_memory: int | None = None,
        embed: Callable[[TokenIds], Embeddings] | None = None,
    ) -> None:
        """`threads` 0 is one for each core this process may use; `kv_memory` None is half of what is available.

        `embed` gives the vectors of tokens, float32[n, hidden size], for a model that takes them instead of tokens.
        The context is made shorter where the memory is too small for one row of it. Raises what onnxruntime raises for
        a broken model, and `ValueError` where there is hardly any memory.
        """
        self.max_rows = max_rows
        self.vocab_size = files.vocab_size
        self._session = _create_session(files.model, threads)
        inputs = {value.name: value.type for value in self._session.get_inputs()}
        names, outputs = files.input_names, files.output_names
        self._ids_name, self._mask_name = names["inputs_embeds" if embed else "input_ids"], names["attention_mask"]
        self._embed = embed
        self._positions_name = names.get("position_ids") if names.get("position_ids") in inputs else None
        self._logits_name = outputs["logits"]
        self._past_names, self._present_names = [], []
        for layer in range(files.num_layers):
            for kind in ("key", "value"):
                self._past_names.append(names[f"past_{kind}_names"] % layer)
                self._present_names.append(outputs[f"present_{kind}_names"] % layer)
        self._kv_type = _DTYPES[inputs[self._past_names[0]]]
        self.kv_cache_bytes = available_memory() // 2 if kv_memory is None else kv_memory
        shape = (len(self._past_names), max_rows, files.num_kv_heads)
        context_length = min(context_length, files.context_length)
        self._kv_cache = KVCache(*shape, context_length, files.head_size, self._kv_type)
        self.context_length = self._fit_context(context_length)
        # A binding names 120 buffers; one is kept for each set of rows rather than made anew at each step.
        self._bindings: dict[tuple[int, int], ort.IOBinding] = {}
        logits_type = next(value.type for value in self._session.get_outputs() if value.name == self._logits_name)
        self._step_logits = np.empty((max_rows, 1, files.vocab_size), _DTYPES[logits_type])
        self._step_ids = np.empty((max_rows, 1), np.int64)
        self._chunk_sizes: ChunkSizes = calibrate_chunk_sizes(self)

    def chunk_size(self, past: int) -> int:
        """Prompt tokens that run in about a tenth of a second after `past` others."""
        return self._chunk_sizes.chunk_size(past)

    def prefill(self, row: int, tokens: TokenIds, past: int) -> Logits:
        """Store int64[k] tokens behind the `past` tokens of a row; float32[vocabulary] after the last of them."""
        binding = self._binding(row, 1)
        total = past + len(tokens)
        ids = self._embed(tokens)[None] if self._embed else np.ascontiguousarray(tokens, np.int64)[None]
        mask = np.ones((1, total), np.int64)
        _bind(binding, self._ids_name, ids)
        _bind(binding, self._mask_name, mask)
        if self._positions_name:
            positions = np.arange(past, total, dtype=np.int64)[None]
            _bind(binding, self._positions_name, positions)
        # Some exports give logits for every token, some for the last alone: onnxruntime makes room for either.
        binding.bind_output(self._logits_name, "cpu")
        self._session.run_with_iobinding(binding)
        (logits,) = (value for value in binding.get_outputs() if value.shape()[-1] == self.vocab_size)
        last: Logits = logits.numpy()[0, -1].astype(np.float32)
        return last

    def decode(self, tokens: TokenIds, lengths: TokenIds, first: int = 0) -> Logits:
        """Run one token each for the n rows from `first` on, which hold `lengths` tokens; float32[n, vocabulary]."""
        rows = len(tokens)
        binding = self._binding(first, rows)
        step, logits = self._step_ids[:rows], self._step_logits[:rows]
        step[:, 0] = tokens
        ids = self._embed(tokens)[:, None] if self._embed else step
        mask = (np.arange(int(lengths.max()) + 1) <= lengths[:, None]).astype(np.int64)
        _bind(binding, self._ids_name, ids)
        _bind(binding, self._mask_name, mask)
        if self._positions_name:
            positions = lengths[:, None].astype(np.int64)
            _bind(binding, self._positions_name, positions)
        binding.bind_output(self._logits_name, "cpu", 0, logits.dtype, logits.shape, logits.ctypes.data)
        self._session.run_with_iobinding(binding)
        return logits[:, 0].astype(np.float32, copy=False)

    def kv_bytes(self, length: int) -> int:
        """The memory of a row that holds `length` tokens."""
        return self._kv_cache.kv_bytes(length)

    def copy(self, source: int, target: int, start: int, stop: int) -> None:
        """Copy the keys and values of the tokens from `start` to before `stop` of one row to another."""
        self._kv_cache.copy(source, target, start, stop)

    def save(self, row: int, start: int, stop: int) -> SavedKV:
        """A copy of the keys and values of the tokens from `start` to before `stop` of a row."""
        return self._kv_cache.save(row, start, stop)

    def load(self, row: int, start: int, saved: SavedKV) -> None:
        """Store what was saved behind the `start` tokens of a row."""
        self._kv_cache.load(row, start, saved)

    def swap(self, one: int, other: int, lengths: tuple[int, int]) -> None:
        """Exchange two rows, which hold so many tokens."""
        self._kv_cache.swap(one, other, lengths)

    def release(self, row: int) -> None:
        """Forget a row, and give its memory back."""
        self._kv_cache.release(row)

    def close(self) -> None:
        """Give everything back."""
        self._bindings.clear()
        del self._session
        self._kv_cache.close()

    def _fit_context(self, context_length: int) -> int:
        """As many tokens of a context as fit into the memory."""
        memory = self._kv_cache
        fitting = self.kv_cache_bytes // memory.kv_bytes(memory.tokens_per_page) * memory.tokens_per_page
        if fitting < min(context_length, _MIN_CONTEXT_TOKENS):
            least = memory.kv_bytes(_MIN_CONTEXT_TOKENS) / 2**20
            raise ValueError(
                f"Keys and values may take {self.kv_cache_bytes / 2**20:.0f} MB; {_MIN_CONTEXT_TOKENS} tokens "
                f"take {least:.0f}."
            )
        if fitting < context_length:
            megabytes = self.kv_cache_bytes / 2**20
            _log.warning("Keys and values may take %.0f MB: the context is %d tokens.", megabytes, fitting)
        return min(context_length, fitting)

    def _binding(self, first: int, rows: int) -> ort.IOBinding:
        """A binding whose past and present are `rows` rows from `first` on."""
        if (first, rows) not in self._bindings:
            binding = self._session.io_binding()
            shape = self._kv_cache.shape(rows)
            for tensor, (past, present) in enumerate(zip(self._past_names, self._present_names, strict=True)):
                address = self._kv_cache.address(tensor, first)
                binding.bind_input(past, "cpu", 0, self._kv_type, shape, address)
                binding.bind_output(present, "cpu", 0, self._kv_type, shape, address)
            self._bindings[first, rows] = binding
        return self._bindings[first, rows]


def _bind(binding: ort.IOBinding, name: str, array: npt.NDArray[np.int64] | Embeddings) -> None:
    """Bind an array without a copy; it must live until the step has run."""
    binding.bind_input(name, "cpu", 0, array.dtype, array.shape, array.ctypes.data)


def _create_session(model: Path, threads: int) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads or len(os.sched_getaffinity(0))
    options.inter_op_num_threads = 1
    # The patterns are kept for each set of shapes, and the shape of the mask changes with every step.
    options.enable_mem_pattern = False
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "1")
    options.add_session_config_entry("session.intra_op.spin_duration_us", _SPIN_MICROSECONDS)
    return ort.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
