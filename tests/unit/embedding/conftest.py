"""The embedding backend without Triton and without a network: a scripted encoder and recording senders."""

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
        assert self.gate.wait(10)
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
def scheduler(encoder: ScriptedEncoder) -> EmbeddingScheduler:
    return EmbeddingScheduler(encoder, 1)


@pytest.fixture
def frontend(
    encoder: ScriptedEncoder, scheduler: EmbeddingScheduler, texts: InputTokenizer
) -> Iterator[EmbeddingFrontend]:
    made = EmbeddingFrontend(scheduler, texts, OPTIONS)
    yield made
    encoder.gate.set()
    made.close()


@pytest.fixture
def ask(frontend: EmbeddingFrontend) -> Callable[..., RecordingSender]:
    def send(*lists: list[int], **more: object) -> RecordingSender:
        sender = RecordingSender()
        ids = np.array([token for each in lists for token in each], np.int32)
        counts = np.array([len(each) for each in lists], np.int32)
        frontend.add_request(Request(token_ids=ids, token_counts=counts, **more), sender)  # type: ignore[arg-type]
        return sender

    return send


def wait_for(condition: Callable[[], bool]) -> None:
    pause = threading.Event()
    for _ in range(1000):
        if condition():
            return
        pause.wait(0.01)
    raise AssertionError("it did not happen in time")
