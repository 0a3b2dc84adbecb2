"""`ModelRunner` on onnxruntime: prefill and decode steps of a decoder that the onnxruntime-genai builder exported."""

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
_SPIN_MICROSECONDS = "10"
"""Time that an onnxruntime thread spins between two operators before it sleeps, in microseconds.

Spinning a little is a quarter faster than sleeping at once. On an idle machine, 100 microseconds gain another tenth
with one stream and nothing with more; on a busy one with four streams, they cost a fifth more CPU per token, and then
a third of the throughput.
"""
_MIN_CONTEXT_TOKENS = 128
"""The shortest context that is worth serving."""

_log = logging.getLogger(__name__)


class OrtModelRunner:
    """`backends.llm.batching.model_runner.ModelRunner` over GroupQueryAttention with shared past and present buffers.

    Past and present are bound to the same KV-cache memory, so a decode step writes one token per slot and copies
    nothing. onnxruntime takes the length of each slot from the attention mask.
    """

    def __init__(
        self,
        config: DecoderConfig,
        *,
        max_rows: int,
        context_length: int,
        threads: int,
        kv_memory: int | None = None,
        embed: Callable[[TokenIds], Embeddings] | None = None,
    ) -> None:
        """`threads` 0 means one for each core this process may use; `kv_memory` is in bytes, None means half of the
        available memory.

        `embed` returns the embeddings float32[n, hidden size] of int64[n] ids, for a model that takes them instead of
        ids. The context is shortened if one full slot does not fit into the memory. Raises what onnxruntime raises for
        a broken model, and `ValueError` if not even 128 tokens fit.
        """
        self.max_rows = max_rows
        self.vocab_size = config.vocab_size
        self._session = _create_session(config.model, threads)
        inputs = {value.name: value.type for value in self._session.get_inputs()}
        names, outputs = config.input_names, config.output_names
        self._ids_name, self._mask_name = names["inputs_embeds" if embed else "input_ids"], names["attention_mask"]
        self._embed = embed
        self._positions_name = names.get("position_ids") if names.get("position_ids") in inputs else None
        self._logits_name = outputs["logits"]
        self._past_names, self._present_names = [], []
        for layer in range(config.num_layers):
            for kind in ("key", "value"):
                self._past_names.append(names[f"past_{kind}_names"] % layer)
                self._present_names.append(outputs[f"present_{kind}_names"] % layer)
        self._kv_type = _DTYPES[inputs[self._past_names[0]]]
        self.kv_cache_bytes = available_memory() // 2 if kv_memory is None else kv_memory
        shape = (len(self._past_names), max_rows, config.num_kv_heads)
        context_length = min(context_length, config.context_length)
        self._kv_cache = KVCache(*shape, context_length, config.head_size, self._kv_type)
        self.context_length = self._fit_context(context_length)
        # A binding names 120 buffers, so each range of slots has one that is reused, instead of one built at each step.
        self._bindings: dict[tuple[int, int], ort.IOBinding] = {}
        logits_type = next(value.type for value in self._session.get_outputs() if value.name == self._logits_name)
        self._step_logits = np.empty((max_rows, 1, config.vocab_size), _DTYPES[logits_type])
        self._step_ids = np.empty((max_rows, 1), np.int64)
        self._chunk_sizes: ChunkSizes = calibrate_chunk_sizes(self)

    def chunk_size(self, past: int) -> int:
        """Return how many prompt tokens run in about a tenth of a second after `past` others."""
        return self._chunk_sizes.chunk_size(past)

    def prefill(self, slot: int, tokens: TokenIds, past: int) -> Logits:
        """Run int64[k] tokens after the `past` tokens of a slot. Return float32[vocabulary] after the last of them."""
        binding = self._binding(slot, 1)
        total = past + len(tokens)
        ids = self._embed(tokens)[None] if self._embed else np.ascontiguousarray(tokens, np.int64)[None]
        mask = np.ones((1, total), np.int64)
        _bind(binding, self._ids_name, ids)
        _bind(binding, self._mask_name, mask)
        if self._positions_name:
            positions = np.arange(past, total, dtype=np.int64)[None]
            _bind(binding, self._positions_name, positions)
        # Some exports give logits for every token, some for the last alone: onnxruntime allocates whichever it is.
        binding.bind_output(self._logits_name, "cpu")
        self._session.run_with_iobinding(binding)
        (logits,) = (value for value in binding.get_outputs() if value.shape()[-1] == self.vocab_size)
        last: Logits = logits.numpy()[0, -1].astype(np.float32)
        return last

    def decode(self, tokens: TokenIds, lengths: TokenIds, first_slot: int = 0) -> Logits:
        """Run one token in each of n slots from `first_slot` on, which hold `lengths` tokens. Return
        float32[n, vocabulary].
        """
        num_slots = len(tokens)
        binding = self._binding(first_slot, num_slots)
        step, logits = self._step_ids[:num_slots], self._step_logits[:num_slots]
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
        """Return the bytes of a slot that holds `length` tokens."""
        return self._kv_cache.kv_bytes(length)

    def copy(self, source: int, target: int, start: int, stop: int) -> None:
        """Copy the keys and values of the tokens `start` to `stop` - 1 from one slot to another."""
        self._kv_cache.copy(source, target, start, stop)

    def save(self, slot: int, start: int, stop: int) -> SavedKV:
        """Return a copy of the keys and values of the tokens `start` to `stop` - 1 of a slot."""
        return self._kv_cache.save(slot, start, stop)

    def load(self, slot: int, start: int, saved: SavedKV) -> None:
        """Write saved keys and values into a slot, after its first `start` tokens."""
        self._kv_cache.load(slot, start, saved)

    def swap(self, first: int, second: int, lengths: tuple[int, int]) -> None:
        """Exchange the contents of two slots, which hold `lengths` tokens."""
        self._kv_cache.swap(first, second, lengths)

    def release(self, slot: int) -> None:
        """Empty a slot, and give its memory back."""
        self._kv_cache.release(slot)

    def close(self) -> None:
        """Free the session and the KV cache."""
        self._bindings.clear()
        del self._session
        self._kv_cache.close()

    def _fit_context(self, context_length: int) -> int:
        """Return `context_length`, or as many tokens as fit into the memory if that is less. Raises `ValueError`."""
        kv_cache = self._kv_cache
        fitting = self.kv_cache_bytes // kv_cache.kv_bytes(kv_cache.tokens_per_page) * kv_cache.tokens_per_page
        if fitting < min(context_length, _MIN_CONTEXT_TOKENS):
            least = kv_cache.kv_bytes(_MIN_CONTEXT_TOKENS) / 2**20
            raise ValueError(
                f"The KV cache may take {self.kv_cache_bytes / 2**20:.0f} MB; {_MIN_CONTEXT_TOKENS} tokens "
                f"take {least:.0f}."
            )
        if fitting < context_length:
            megabytes = self.kv_cache_bytes / 2**20
            _log.warning("The KV cache may take %.0f MB: the context is %d tokens.", megabytes, fitting)
        return min(context_length, fitting)

    def _binding(self, first_slot: int, num_slots: int) -> ort.IOBinding:
        """Return the binding whose past and present are `num_slots` slots from `first_slot` on."""
        if (first_slot, num_slots) not in self._bindings:
            binding = self._session.io_binding()
            shape = self._kv_cache.shape(num_slots)
            for tensor, (past, present) in enumerate(zip(self._past_names, self._present_names, strict=True)):
                address = self._kv_cache.address(tensor, first_slot)
                binding.bind_input(past, "cpu", 0, self._kv_type, shape, address)
                binding.bind_output(present, "cpu", 0, self._kv_type, shape, address)
            self._bindings[first_slot, num_slots] = binding
        return self._bindings[first_slot, num_slots]


def _bind(binding: ort.IOBinding, name: str, array: npt.NDArray[np.int64] | Embeddings) -> None:
    """Bind an input array without copying it. The array must live until the session has run."""
    binding.bind_input(name, "cpu", 0, array.dtype, array.shape, array.ctypes.data)


def _create_session(model: Path, threads: int) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads or len(os.sched_getaffinity(0))
    options.inter_op_num_threads = 1
    # onnxruntime would keep a memory pattern for each set of shapes, and the mask's shape changes with every step.
    options.enable_mem_pattern = False
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "1")
    options.add_session_config_entry("session.intra_op.spin_duration_us", _SPIN_MICROSECONDS)
    return ort.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
