"""The engine interface: token ids and sampling parameters in, events out.

Every engine of this backend implements `Engine`; `engines.py` lists them. An engine knows nothing of Triton, tensors or
HTTP.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

from backends.llm.sampling_params import SamplingParams
from backends.llm.stats import Stats
from backends.serving.errors import GenerationError

FinishReason = str
"""`stop` or `length`, or a name of the engine's own for an answer that it ended for another reason."""
StructureEnforcement = Literal["matcher", "engine", "none"]
"""How an engine enforces `sampling.structured_outputs`: with the `Matcher`s of `Generation.grammar`, by itself, or not
at all."""
TokenIds = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Logprob:
    """A token's log probability, before any sampling option changed the logits, and its rank, from 1.

    Both are None for the first token of a prompt: the model gives no logits before it.
    """

    token: int
    logprob: float | None
    rank: int | None


Logprobs = tuple[Logprob, ...]
"""The entry of one position: the text's own token first, then the likeliest others by rank."""


@dataclass(frozen=True, slots=True)
class Delta:
    """The result of one decode step for one answer of a generation.

    `text` is empty while a character or a possible stop string is incomplete. `num_tokens` counts hidden tokens too; it
    is 0 if the delta only carries the finish reason. `logprobs`, if requested, has an entry for each new token, except
    for a stop token, which is not part of the text. The first delta of answer 0 begins with the entries of the prompt.
    """

    index: int
    text: str
    num_tokens: int
    finish_reason: FinishReason | None = None
    logprobs: tuple[Logprobs, ...] = ()


@dataclass(frozen=True, slots=True)
class PromptExpanded:
    """The engine has replaced placeholders in the prompt, which now has `num_tokens` tokens. Precedes each `Delta`."""

    num_tokens: int


@dataclass(frozen=True, slots=True)
class GenerationFailed:
    """The generation has ended with an error. No event follows."""

    error: GenerationError


Event = Delta | PromptExpanded | GenerationFailed
EventSink = Callable[[Event], None]


class Matcher(Protocol):
    """The state of one answer in its grammar. Only the engine's thread uses it, and closes it when the answer ends."""

    @property
    def is_complete(self) -> bool:
        """True if no token may follow."""

    def banned_tokens(self, seconds: float) -> npt.NDArray[np.bool_] | None:
        """Return the tokens that may not come next, bool[vocabulary].

        Return None if the mask is not known after `seconds`, or if the answer turns out to be complete. Raises
        `InvalidValue` if the grammar turns out to be too complex.
        """

    def consume(self, token: int) -> bool | None:
        """Advance by a token. Return whether the answer is complete, or None if that is not known yet.

        Raises `InvalidValue` if the grammar turns out to be too complex.
        """

    def close(self) -> None:
        """Free the resources of the state. May be called twice; no other method may be called after it."""


class Grammar(Protocol):
    """A compiled grammar."""

    def new_matcher(self) -> Matcher:
        """Return the state of an answer that is still empty."""


@dataclass(frozen=True, slots=True)
class ImageInputs:
    """The images of a prompt, as the engine takes them.

    For an engine that takes embeddings, `tokens`, int64[n], is the prompt with a negative id at the position of each
    image embedding. No other image has the same ids. The model runner looks the embeddings up by them, for as long as
    `features` are referenced. For an engine that encodes images by itself, `tokens` is the prompt with one placeholder
    per image, and `features` are the decoded images.
    """

    tokens: TokenIds
    features: tuple[object, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Generation:
    """One request: `sampling.n` answers to one prompt.

    `prompt`, int64[n], holds at least one token id, each within the vocabulary. The engine's thread calls `sink` (or
    the thread that cancels does), and `sink` must return at once. The generation has ended when each answer had a
    `Delta` with a finish reason, or after one `GenerationFailed`. `grammar` is `sampling.structured_outputs`, compiled;
    None for an engine that enforces structures by itself.
    """

    prompt: TokenIds
    sampling: SamplingParams
    sink: EventSink
    grammar: Grammar | None = None
    image_inputs: ImageInputs | None = None

    @property
    def prefill_tokens(self) -> TokenIds:
        """The ids that the model runner gets for the prompt, int64[n]."""
        return self.image_inputs.tokens if self.image_inputs else self.prompt


class Engine(Protocol):
    """Runs many generations at a time. All methods may be called from any thread."""

    @property
    def context_length(self) -> int:
        """Maximum number of tokens of a prompt and its answer together."""

    @property
    def vocab_size(self) -> int:
        """Number of token ids: each is smaller than this."""

    @property
    def stats(self) -> Stats:
        """Gauges and counters of the engine, of a class of its own. Any thread may read them at any time."""

    @property
    def structure_enforcement(self) -> StructureEnforcement:
        """How the engine enforces structured outputs."""

    @property
    def adapters(self) -> frozenset[str]:
        """The LoRA adapters that `sampling.lora_name` may name."""

    def submit(self, generation: Generation) -> None:
        """Accept a generation; its events go to its sink.

        Raises `InvalidValue` for more answers than the engine can ever hold, `ContextLengthExceeded` for a prompt that
        leaves no room for an answer, `Overloaded` if the queue is full, and `EngineFailed` if the engine is closed. No
        event is sent then.
        """

    def cancel(self, generation: Generation) -> None:
        """End a generation with `GenerationFailed(Cancelled)`. Do nothing if it has ended or is unknown."""

    def close(self) -> None:
        """End all open generations with `GenerationFailed(EngineFailed)`, and all threads. May be called twice."""
