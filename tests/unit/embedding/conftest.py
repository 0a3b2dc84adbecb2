"""The embedding backend without Triton and without a network: a scripted encoder and recording senders."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from backends.embedding.encoder import Embeddings, TokenIds
from backends.embedding.options import Options
from backends.embedding.request_frontend import EmbeddingFrontend, Request
from backends.embedding.scheduler import EmbeddingScheduler
from backends.embedding.tokenization import InputTokenizer
from backends.serving.errors import GenerationError

OPTIONS = Options(
    context_length=12,
    dimensions=4,
    normalized=True,
    matryoshka=(2,),
    prompts={"query": "q:", "passage": "p:"},
    max_waiting=8,
    threads=1,
)
VOCABULARY = 300


class ScriptedEncoder:
    """An encoder whose vectors hold the first token and the length of a text.

    It waits at `gate`, and fails if a text begins with the token 99.
    """

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self.begun = threading.Event()
        self.runs: list[list[int]] = []

    def embed(self, texts: Sequence[TokenIds]) -> Embeddings:
        self.runs.append([len(text) for text in texts])
        self.begun.set()
        assert self.gate.wait(60)
        if any(text[0] == 99 for text in texts):
            raise RuntimeError("the network is broken")
        return np.array([[text[0], len(text), 1, 0] for text in texts], np.float32)


class RecordingSender:
    """A response sender that records its responses."""

    def __init__(self) -> None:
        self.disconnected = False
        self.answered = threading.Event()
        self.outcomes: list[tuple[Embeddings, npt.NDArray[np.int32]] | GenerationError] = []

    def is_cancelled(self) -> bool:
        return self.disconnected

    def send(self, embedding: Embeddings, num_tokens: npt.NDArray[np.int32]) -> None:
        self._end((embedding, num_tokens))

    def fail(self, error: GenerationError) -> None:
        self._end(error)

    def _end(self, outcome: tuple[Embeddings, npt.NDArray[np.int32]] | GenerationError) -> None:
        self.outcomes.append(outcome)
        self.answered.set()

    def outcome(self) -> tuple[Embeddings, npt.NDArray[np.int32]]:
        assert self.answered.wait(60)
        (outcome,) = self.outcomes
        if isinstance(outcome, GenerationError):
            raise outcome
        return outcome


@pytest.fixture
def encoder() -> ScriptedEncoder:
    return ScriptedEncoder()


@pytest.fixture
def input_tokenizer() -> InputTokenizer:
    """A tokenizer with one token per byte, after a special token."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={t: i for i, t in enumerate(["<s>", *alphabet])}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    return InputTokenizer(tokenizer, OPTIONS, VOCABULARY)


@pytest.fixture
def scheduler(encoder: ScriptedEncoder) -> EmbeddingScheduler:
    return EmbeddingScheduler(encoder, 1)


@pytest.fixture
def frontend(
    encoder: ScriptedEncoder, scheduler: EmbeddingScheduler, input_tokenizer: InputTokenizer
) -> Iterator[EmbeddingFrontend]:
    frontend = EmbeddingFrontend(scheduler, input_tokenizer, OPTIONS)
    yield frontend
    encoder.gate.set()
    frontend.close()


@pytest.fixture
def ask(frontend: EmbeddingFrontend) -> Callable[..., RecordingSender]:
    """A function that sends a request with lists of token ids, and returns its sender."""

    def send(*inputs: list[int], **options: Any) -> RecordingSender:
        sender = RecordingSender()
        ids = np.array([token for tokens in inputs for token in tokens], np.int32)
        counts = np.array([len(tokens) for tokens in inputs], np.int32)
        frontend.add_request(Request(token_ids=ids, token_counts=counts, **options), sender)
        return sender

    return send


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "the condition did not become true"
        time.sleep(0.01)
