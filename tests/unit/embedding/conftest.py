"""A backend without Triton and without a network: an encoder and clients that remember."""

import threading
from collections.abc import Callable, Iterator, Sequence

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
    """An encoder whose rows say which tokens they are of; it waits at `gate`, and fails where a text begins with 99."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self.begun = threading.Event()
        self.runs: list[list[int]] = []

    def embed(self, texts: Sequence[TokenIds]) -> Embeddings:
        self.runs.append([len(text) for text in texts])
        self.begun.set()
        assert self.gate.wait(10)
        if any(text[0] == 99 for text in texts):
            raise RuntimeError("the network is broken")
        return np.array([[text[0], len(text), 1, 0] for text in texts], np.float32)


class RecordingSender:
    """A client that keeps what it is sent."""

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
        assert self.answered.wait(10)
        (outcome,) = self.outcomes
        if isinstance(outcome, GenerationError):
            raise outcome
        return outcome


@pytest.fixture
def encoder() -> ScriptedEncoder:
    return ScriptedEncoder()


@pytest.fixture
def texts() -> InputTokenizer:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={t: i for i, t in enumerate(["<s>", *alphabet])}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    return InputTokenizer(tokenizer, OPTIONS, VOCABULARY)


@pytest.fixture
def lanes(encoder: ScriptedEncoder) -> EmbeddingScheduler:
    return EmbeddingScheduler(encoder, 1)


@pytest.fixture
def desk(encoder: ScriptedEncoder, lanes: EmbeddingScheduler, texts: InputTokenizer) -> Iterator[EmbeddingFrontend]:
    made = EmbeddingFrontend(lanes, texts, OPTIONS)
    yield made
    encoder.gate.set()
    made.close()


@pytest.fixture
def ask(desk: EmbeddingFrontend) -> Callable[..., RecordingSender]:
    def send(*lists: list[int], **more: object) -> RecordingSender:
        caller = RecordingSender()
        ids = np.array([token for each in lists for token in each], np.int32)
        counts = np.array([len(each) for each in lists], np.int32)
        desk.add_request(Request(token_ids=ids, token_counts=counts, **more), caller)  # type: ignore[arg-type]
        return caller

    return send


def wait_for(condition: Callable[[], bool]) -> None:
    pause = threading.Event()
    for _ in range(1000):
        if condition():
            return
        pause.wait(0.01)
    raise AssertionError("it did not happen in time")
