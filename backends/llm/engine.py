"""What an engine is: token ids and sampling in, events out.

Every engine of this backend (onnxruntime on a CPU or a GPU, TensorRT-LLM) stands behind `Engine`. An engine knows
nothing of Triton, tensors or HTTP.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

from backends.llm.sampling_params import SamplingParams
from backends.llm.stats import Stats
from backends.serving.errors import GenerationError

FinishReason = Literal["stop", "length"]
TokenIds = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Logprob:
    """What the model gave a token: its log probability before any option has changed it, and its rank from 1 on.

    Both are None for the first token of a prompt, before which there is nothing to be likely after.
    """

    token: int
    logprob: float | None
    rank: int | None


Logprobs = tuple[Logprob, ...]
"""A token of a text first, then the likeliest others by rank."""


@dataclass(frozen=True, slots=True)
class Delta:
    """What one step added to one of the answers of a generation.

    `text` may be empty while a character or a possible stop string is incomplete; `num_tokens` counts hidden ones too,
    and is 0 where only the end is told.
    `logprobs` has an entry for each token added, where they are asked for, but for a token that ended the answer
    unseen. Those of the prompt come first, with the first delta of answer 0.
    """

    index: int
    text: str
    num_tokens: int
    finish_reason: FinishReason | None = None
    logprobs: tuple[Logprobs, ...] = ()


@dataclass(frozen=True, slots=True)
class GenerationFailed:
    """The generation has ended without success; no event follows."""

    error: GenerationError


Event = Delta | GenerationFailed
EventSink = Callable[[Event], None]


class Matcher(Protocol):
    """How far one answer has come in its grammar. Used by the engine's thread alone."""

    @property
    def is_complete(self) -> bool:
        """Whether nothing may follow."""

    def banned_tokens(self, seconds: float) -> npt.NDArray[np.bool_] | None:
        """Which tokens may not come next, bool[vocabulary]; None where that is not known after `seconds`.

        None too where the answer turns out to be `complete`. Raises `InvalidValue` where the grammar turns out to be
        too complex.
        """

    def consume(self, token: int) -> bool | None:
        """Go on by a token; true where the answer is complete, None where that is not known yet. Raises as `banned`."""


class Grammar(Protocol):
    """A compiled grammar."""

    def new_matcher(self) -> Matcher:
        """The state of a new answer."""


@dataclass(frozen=True, slots=True)
class ImageInputs:
    """What stands for the pictures of a prompt.

    `tokens` is the prompt with a number below 0 in the place of each vector of a picture: int64[tokens]. No other
    picture has these numbers. The forward pass finds the vectors by them for as long as `features` are referred to.
    """

    tokens: TokenIds
    features: tuple[object, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Generation:
    """One request: `sampling.n` answers to one prompt.

    `prompt` holds at least one token id, int64[tokens], each within the vocabulary. `sink` is called from the engine's
    own thread (or from the thread that cancels) and must return at once. The generation has ended when each answer had
    a `Delta` with a finish reason, or after one `Failed`. `grammar` is `sampling.structured_outputs`, compiled.
    """

    prompt: TokenIds
    sampling: SamplingParams
    sink: EventSink
    grammar: Grammar | None = None
    image_inputs: ImageInputs | None = None

    @property
    def prefill_tokens(self) -> TokenIds:
        """What the forward pass is given for the prompt: int64[tokens]."""
        return self.image_inputs.tokens if self.image_inputs else self.prompt


class Engine(Protocol):
    """Runs many generations side by side. All methods may be called from any thread."""

    @property
    def context_length(self) -> int:
        """Tokens of prompt and answer together."""

    @property
    def vocab_size(self) -> int:
        """Token ids are smaller than this."""

    @property
    def stats(self) -> Stats:
        """What the engine has done so far; read it at leisure."""

    def submit(self, generation: Generation) -> None:
        """Take a generation; events begin to arrive at its sink.

        Raises `InvalidValue` for more answers than there will ever be room for, `ContextLengthExceeded`, `Overloaded`,
        or `EngineFailed` where the engine is closed; no event comes then.
        """

    def cancel(self, generation: Generation) -> None:
        """End a generation with `Failed(Cancelled)`; one that has ended, or is unknown, is left alone."""

    def close(self) -> None:
        """End everything that is open with `Failed(EngineFailed)`, and every thread. May be called twice."""
