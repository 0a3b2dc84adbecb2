"""A tiny model from the real exporter, and a scripted model runner for what a real one does only by chance."""

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from backends.llm.batching.engine import BatchingEngine
from backends.llm.engine import Delta, Engine, Event, Generation, GenerationFailed
from backends.llm.sampling_params import SamplingParams
from backends.serving.errors import GenerationError

SPECIALS = ["<s>", "</s>", "<|end|>"]

EXPORT = """
import importlib.util, sys
from pathlib import Path
sys.path.insert(0, str(Path(importlib.util.find_spec("onnxruntime_genai").origin).parent / "models"))
from builder import create_model, parse_extra_options
arguments = (None, *sys.argv[1:6])
create_model(*arguments, **parse_extra_options(*arguments, ["prune_lm_head=true"]))
"""


def byte_tokenizer() -> Tokenizer:
    """Return a tokenizer with one token per byte, so that every character beyond ASCII is split."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={t: i for i, t in enumerate(SPECIALS + alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(SPECIALS)
    return tokenizer


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    return byte_tokenizer()


@pytest.fixture(scope="session")
def export(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Export a Llama with random weights in a precision for a device, once per session, and return its folder."""
    checkpoint = tmp_path_factory.mktemp("checkpoint")
    exported: dict[tuple[str, str], Path] = {}

    def make(precision: str, device: str = "cpu") -> Path:
        if not (checkpoint / "config.json").exists():
            _save_checkpoint(checkpoint)
        if (precision, device) not in exported:
            folder = tmp_path_factory.mktemp(f"engine-{precision}-")
            arguments = [str(checkpoint), str(folder), precision, device, str(tmp_path_factory.mktemp("cache"))]
            command = [sys.executable, "-I", "-c", EXPORT, *arguments]
            done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
            assert done.returncode == 0, done.stderr
            (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [1, 2]}))
            exported[precision, device] = folder
        return exported[precision, device]

    return make


def _save_checkpoint(folder: Path) -> None:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(1)
    config = LlamaConfig(
        vocab_size=259,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=1024,
        initializer_range=0.3,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    byte_tokenizer().save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "</s>"})
    )


DECODED_OFFSET = 10_000


class ScriptedModelRunner:
    """A model runner whose slots store their tokens, and whose likeliest next token depends on all of them.

    So any mistake in lengths, copies or slots changes the answers. A token takes two bytes, in pages of four tokens.

    `stored_tokens`, int64[slots, context], is -1 where a slot is empty; a token that a decode step stored is offset by
    `DECODED_OFFSET`. `calls` records the calls with their sizes, and `prefilled_by` the first token of the slot of each
    prefill. A test may set `raises_for`, which decides from the slots' tokens whether a call raises, and
    `gives_nan_for`, which decides from a slot's tokens whether its logits are NaN.
    """

    vocab_size = 259

    def __init__(
        self,
        max_rows: int = 4,
        context_length: int = 1000,
        chunk_size: int = 8,
        seconds: float = 0.0,
        kv_memory: int = 2**40,
    ) -> None:
        self.max_rows, self.context_length, self.kv_cache_bytes = max_rows, context_length, kv_memory
        self.stored_tokens = np.full((max_rows, context_length), -1, np.int64)
        self.calls: list[tuple[str, int]] = []
        self.prefilled_by: list[int] = []
        self.raises_for: Callable[[list[list[int]]], bool] = lambda rows: False
        self.gives_nan_for: Callable[[list[int]], bool] = lambda tokens: False
        self.closed = False
        self._chunk_size, self._seconds = chunk_size, seconds

    def chunk_size(self, past: int) -> int:
        return self._chunk_size

    def prefill(self, slot: int, tokens: Any, past: int) -> Any:
        assert 0 < len(tokens) <= self._chunk_size and past % self._chunk_size == 0, (
            "the prompt was not cut by position"
        )
        self.calls.append(("prefill", len(tokens)))
        time.sleep(self._seconds)
        self.stored_tokens[slot, past : past + len(tokens)] = tokens
        self.prefilled_by.append(int(self.stored_tokens[slot, 0]))
        return self._logits(slot, past + len(tokens))[0]

    def decode(self, tokens: Any, lengths: Any, first_slot: int = 0) -> Any:
        self.calls.append(("decode", len(tokens)))
        time.sleep(self._seconds)
        rows = range(first_slot, first_slot + len(tokens))
        for slot, token, length in zip(rows, tokens, lengths, strict=True):
            self.stored_tokens[slot, length] = token + DECODED_OFFSET
        return np.concatenate([self._logits(slot, n + 1) for slot, n in zip(rows, lengths, strict=True)])

    def kv_bytes(self, length: int) -> int:
        return -(-length // 4) * 8

    def copy(self, source: int, target: int, start: int, stop: int) -> None:
        self.calls.append(("copy", stop - start))
        self.stored_tokens[target, start:stop] = self.stored_tokens[source, start:stop]

    def save(self, slot: int, start: int, stop: int) -> Any:
        tokens = self.stored_tokens[slot, start:stop]
        assert (tokens >= 0).all() and (tokens < DECODED_OFFSET).all(), "generated tokens were saved"
        return self.stored_tokens[slot, start:stop].astype(np.int16)

    def load(self, slot: int, start: int, saved: Any) -> None:
        self.calls.append(("load", len(saved)))
        assert (self.stored_tokens[slot, start:] == -1).all()
        self.stored_tokens[slot, start : start + len(saved)] = saved

    def swap(self, first: int, second: int, lengths: tuple[int, int]) -> None:
        self.calls.append(("swap", sum(lengths)))
        for slot, length in zip((first, second), lengths, strict=True):
            stored = self.stored_tokens[slot]
            # A sequence whose mask was late runs its last token again: the slot holds that token already.
            rest = stored[length + 1 :] if length else stored
            assert (stored[:length] >= 0).all() and (rest == -1).all()
        self.stored_tokens[[first, second]] = self.stored_tokens[[second, first]]

    def release(self, slot: int) -> None:
        self.stored_tokens[slot] = -1

    def close(self) -> None:
        self.closed = True

    def used_bytes(self) -> int:
        """Return the bytes of all slots."""
        return sum(self.kv_bytes(int(stored)) for stored in (self.stored_tokens >= 0).sum(axis=1))

    def _logits(self, slot: int, length: int) -> Any:
        tokens = (self.stored_tokens[slot, :length] % DECODED_OFFSET).tolist()
        assert self.used_bytes() <= self.kv_cache_bytes, "the slots exceed their memory"
        assert (self.stored_tokens[slot, :length] >= 0).all(), "a slot was read beyond its stored tokens"
        if self.raises_for([tokens]):
            raise RuntimeError("the device has gone")
        logits = np.zeros((1, self.vocab_size), np.float32)
        logits[0, self.next_token(tokens)] = np.nan if self.gives_nan_for(tokens) else 5.0
        return logits

    @staticmethod
    def next_token(tokens: list[int]) -> int:
        """Return a printable character that depends on all tokens before."""
        offset = sum((number + 1) * (token + 7) for number, token in enumerate(tokens)) % 60
        return 3 + 33 + offset

    def expected_answer(self, prompt: list[int], count: int) -> list[int]:
        """Return the tokens that a sequence generates if it runs alone."""
        tokens = list(prompt)
        for _ in range(count):
            tokens.append(self.next_token(tokens))
        return tokens[len(prompt) :]


class EventCollector:
    """Submits one generation, and collects its events."""

    def __init__(self, engine: Engine, prompt: Any, grammar: Any = None, **sampling: Any) -> None:
        self.events: list[Event] = []
        self.ended = threading.Event()
        self.ended_at = 0
        """Nanoseconds of the monotonic clock. All collectors of an engine are called in one thread."""
        self.has_first_token = threading.Event()
        options = SamplingParams(**({"temperature": 0.0} | sampling))
        self.texts = [""] * options.n
        self.finish_reasons: list[str | None] = [None] * options.n
        self.num_tokens = 0
        self.error: GenerationError | None = None
        self.generation = Generation(np.asarray(prompt, np.int64), options, self.on_event, grammar)
        engine.submit(self.generation)

    def on_event(self, event: Event) -> None:
        assert not self.ended.is_set(), "an event after the last"
        self.events.append(event)
        if isinstance(event, GenerationFailed):
            self.error = event.error
            self._end()
            return
        assert isinstance(event, Delta) and self.finish_reasons[event.index] is None
        self.texts[event.index] += event.text
        self.num_tokens += event.num_tokens
        self.finish_reasons[event.index] = event.finish_reason
        self.has_first_token.set()
        if all(self.finish_reasons):
            self._end()

    def _end(self) -> None:
        self.ended_at = time.monotonic_ns()
        self.ended.set()

    def wait(self, seconds: float = 60) -> "EventCollector":
        assert self.ended.wait(seconds), "the generation did not end"
        return self


@pytest.fixture
def collect() -> type[EventCollector]:
    return EventCollector


@pytest.fixture
def scripted_engine(tokenizer: Tokenizer) -> Iterator[Callable[..., tuple[BatchingEngine, ScriptedModelRunner]]]:
    """Make engines over scripted model runners. They are closed at the end, and their threads must be gone then."""
    engines: list[tuple[BatchingEngine, ScriptedModelRunner]] = []

    def make(
        max_waiting: int = 100, prefix_cache: int | None = None, **options: Any
    ) -> tuple[BatchingEngine, ScriptedModelRunner]:
        runner = ScriptedModelRunner(**options)
        engine = BatchingEngine(runner, tokenizer, frozenset({1, 2}), max_waiting, prefix_cache)
        engines.append((engine, runner))
        return engines[-1]

    yield make
    for engine, runner in engines:
        engine.close()
        assert runner.closed
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("llm-")]


class ManualEngine(BatchingEngine):
    """An engine without a thread: a test runs its iterations, and so knows what happens in which."""

    def _run(self) -> None:
        pass

    def iterate(self) -> None:
        self._iterate()

    def iterate_until(self, condition: Callable[[], bool], limit: int = 10_000) -> int:
        """Iterate until `condition()` is true, and return the number of iterations."""
        iterations = 0
        while not condition():
            assert iterations < limit, "this takes too many iterations"
            self.iterate()
            iterations += 1
        return iterations


@pytest.fixture
def manual_engine(tokenizer: Tokenizer) -> Callable[..., tuple[ManualEngine, ScriptedModelRunner]]:
    """Make `ManualEngine`s over scripted model runners."""

    def make(
        max_waiting: int = 100, prefix_cache: int | None = None, **options: Any
    ) -> tuple[ManualEngine, ScriptedModelRunner]:
        runner = ScriptedModelRunner(**options)
        return ManualEngine(runner, tokenizer, frozenset({1, 2}), max_waiting, prefix_cache), runner

    return make
