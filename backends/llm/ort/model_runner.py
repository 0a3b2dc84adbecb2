"""`ModelRunner` on onnxruntime: prefill and decode steps of a decoder that the onnxruntime-genai builder exported."""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from backends.llm.batching.model_runner import Logits, SavedKV
from backends.llm.engine import TokenIds
from backends.llm.ort.chunk_calibration import ChunkSizes, calibrate_chunk_sizes
from backends.llm.ort.decoder_config import DecoderConfig
from backends.llm.ort.device_kv_cache import MOVED_TOKENS, TOKENS_PER_PAGE, DeviceKVCache
from backends.llm.ort.execution_device import CPU, ExecutionDevice
from backends.llm.ort.kv_cache import KVCache
from backends.llm.ort.kv_memory import fit_context, fit_slots
from backends.llm.vision.feature_cache import Embeddings

_DTYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16}


class OrtModelRunner:
    """`backends.llm.batching.model_runner.ModelRunner` over GroupQueryAttention with shared past and present buffers.

    Past and present are bound to the same KV-cache memory, so a decode step writes one token per slot and copies
    nothing. onnxruntime takes the length of each slot from the attention mask. On a GPU, ids go to the device and
    logits come back; keys and values stay there.
    """

    def __init__(
        self,
        config: DecoderConfig,
        *,
        max_rows: int,
        context_length: int,
        threads: int,
        kv_memory: int | None = None,
        prefix_cache: int | None = None,
        embed: Callable[[TokenIds], Embeddings] | None = None,
        device: ExecutionDevice = CPU,
    ) -> None:
        """`threads` 0 means one for each core this process may use. `kv_memory` and `prefix_cache`, a part of it, are
        in bytes; None means the device's default, and a quarter.

        `embed` returns the embeddings float32[n, hidden size] of int64[n] ids, for a model that takes them instead of
        ids. The context is shortened if one full slot does not fit into the memory; there are fewer slots than
        `max_rows` if memory that is allocated at once does not hold so many. Raises what onnxruntime raises for a
        broken model, and `ValueError` if not even 128 tokens fit, if onnxruntime cannot use the device, or if the model
        was not exported for it.
        """
        self.vocab_size = config.vocab_size
        self._device = device
        self._session = device.create_session(config.model, threads)
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
        if device.name == "cuda" and self._kv_type != np.float16:
            raise ValueError(
                "The instance group asks for a GPU (KIND_GPU), and the model was exported for the CPU: its keys and "
                "values are not in float16. Build it with --device cuda, or set KIND_CPU."
            )
        self._input_type = _DTYPES.get(inputs[self._ids_name], np.int64)
        self.kv_cache_bytes = device.default_kv_memory() if kv_memory is None else kv_memory
        self.prefix_cache_bytes = self.kv_cache_bytes // 4 if prefix_cache is None else prefix_cache
        context_length = min(context_length, config.context_length)
        allocate = self._allocate_on_device if device.has_device_memory else self._reserve_on_host
        self._kv_cache, self.max_rows, self.context_length = allocate(config, max_rows, context_length)
        max_rows = self.max_rows
        # A binding names 120 buffers, so each range of slots has one that is reused, instead of one built at each step.
        self._bindings: dict[tuple[int, int], ort.IOBinding] = {}
        logits_type = next(value.type for value in self._session.get_outputs() if value.name == self._logits_name)
        self._step_logits = np.empty((max_rows, 1, config.vocab_size), _DTYPES[logits_type])
        self._chunk_sizes: ChunkSizes = calibrate_chunk_sizes(self)

    def chunk_size(self, past: int) -> int:
        """Return how many prompt tokens run in about a tenth of a second after `past` others."""
        return self._chunk_sizes.chunk_size(past)

    def prefill(self, slot: int, tokens: TokenIds, past: int) -> Logits:
        """Run int64[k] tokens after the `past` tokens of a slot. Return float32[vocabulary] after the last of them."""
        binding = self._binding(slot, 1)
        total = past + len(tokens)
        ids = self._inputs(tokens)[None]
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
        logits = self._step_logits[:num_slots]
        ids = self._inputs(tokens)[:, None]
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

    def _reserve_on_host(
        self, config: DecoderConfig, max_rows: int, context_length: int
    ) -> tuple[KVCache | DeviceKVCache, int, int]:
        """Return the cache, the slots and the context. Memory is taken when slots are used."""
        kv_cache = KVCache(len(self._past_names), max_rows, *self._kv_shape(config, context_length))
        context_length = fit_context(
            self.kv_cache_bytes,
            kv_cache.kv_bytes(kv_cache.tokens_per_page),
            kv_cache.tokens_per_page,
            context_length,
        )
        return kv_cache, max_rows, context_length

    def _allocate_on_device(
        self, config: DecoderConfig, max_rows: int, context_length: int
    ) -> tuple[KVCache | DeviceKVCache, int, int]:
        """Return the cache, the slots and the context. All memory is taken now, the prefix cache's too."""
        tensors, heads = len(self._past_names), config.num_kv_heads
        token_bytes = tensors * heads * config.head_size * np.dtype(self._kv_type).itemsize
        memory = self.kv_cache_bytes - self.prefix_cache_bytes - MOVED_TOKENS * token_bytes
        context_length = fit_context(memory, TOKENS_PER_PAGE * token_bytes, TOKENS_PER_PAGE, context_length)
        slot_bytes = -(-context_length // TOKENS_PER_PAGE) * TOKENS_PER_PAGE * token_bytes
        slots = fit_slots(memory, slot_bytes, max_rows, context_length)
        kv_cache = DeviceKVCache(
            tensors,
            slots,
            *self._kv_shape(config, context_length),
            pool_bytes=self.prefix_cache_bytes,
            device=self._device,
        )
        return kv_cache, slots, context_length

    def _kv_shape(self, config: DecoderConfig, context_length: int) -> tuple[int, int, int, npt.DTypeLike]:
        return config.num_kv_heads, context_length, config.head_size, self._kv_type

    def _inputs(self, tokens: TokenIds) -> npt.NDArray[Any]:
        """Return what the model takes for int64[n] ids: the ids, or their embeddings [n, hidden size]."""
        if self._embed is None:
            return np.ascontiguousarray(tokens, np.int64)
        return self._embed(tokens).astype(self._input_type, copy=False)

    def _binding(self, first_slot: int, num_slots: int) -> ort.IOBinding:
        """Return the binding whose past and present are `num_slots` slots from `first_slot` on."""
        if (first_slot, num_slots) not in self._bindings:
            binding = self._session.io_binding()
            shape, place = self._kv_cache.shape(num_slots), (self._device.name, self._device.number)
            for tensor, (past, present) in enumerate(zip(self._past_names, self._present_names, strict=True)):
                address = self._kv_cache.address(tensor, first_slot)
                binding.bind_input(past, *place, self._kv_type, shape, address)
                binding.bind_output(present, *place, self._kv_type, shape, address)
            self._bindings[first_slot, num_slots] = binding
        return self._bindings[first_slot, num_slots]


def _bind(binding: ort.IOBinding, name: str, array: npt.NDArray[Any]) -> None:
    """Bind an input array, on the CPU without copying it. The array must live until the session has run."""
    binding.bind_input(name, "cpu", 0, array.dtype, array.shape, array.ctypes.data)
