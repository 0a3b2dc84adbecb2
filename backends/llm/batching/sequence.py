"""One answer on its way: its place in a row, and what turns its tokens into text."""

from dataclasses import dataclass, field

import numpy as np
from tokenizers import Tokenizer

from backends.llm.batching.detokenizer import Detokenizer
from backends.llm.batching.forward import Logits
from backends.llm.batching.sampler import Sampler
from backends.llm.batching.stop_strings import StopStrings
from backends.llm.engine import Delta, FinishReason, Generation, Tokens


@dataclass(slots=True, eq=False)
class Job:
    """A generation inside the engine; its sequences share it.

    `open` counts the sequences without a finish reason. `cancelled` is set by any thread and obeyed by the engine's
    own. `prompt_logits` are kept from the first sequence for the others, so that one prompt is computed once.
    """

    generation: Generation
    open: int
    cancelled: bool = False
    ended: bool = False
    prompt_logits: Logits | None = None
    sequences: list["Sequence"] = field(default_factory=list)


class Sequence:
    """One of the answers of a job.

    Tokens that are known already are *forced*: they run through steps as if they had been chosen, and tell nothing.
    """

    def __init__(
        self, job: Job, index: int, *, tokenizer: Tokenizer, eos: frozenset[int], room: int, vocab_size: int
    ) -> None:
        """`room` is how many tokens the context has left behind the prompt, at least one."""
        prompt, sampling = job.generation.prompt, job.generation.sampling
        self.job = job
        self.index = index
        self.row = -1
        self.length = 0
        """Tokens whose keys and values the row holds."""
        self.token = -1
        """The newest token, not yet in the row; -1 while the prompt is on its way."""
        self.to_read: Tokens = prompt
        """The tokens of the prompt that are read before the first `accept`."""
        self._known: list[int] = []
        """What follows `to_read`, as far as it was accepted once."""
        self._place = 0
        """How much of `_known` is accepted since the row was begun."""
        self._left = room if sampling.max_tokens is None else min(room, sampling.max_tokens)
        self._ends = frozenset(sampling.stop_token_ids) | (frozenset() if sampling.ignore_eos else eos)
        self._vocab_size = vocab_size
        self._sampler: Sampler | None = None
        self._detokenizer = Detokenizer(tokenizer, prompt)
        self._stops = StopStrings(sampling.stop)

    def restart(self) -> None:
        """The row is lost: what was accepted is forced from now on, and nothing is told twice."""
        self.length = 0
        self.token = -1
        self._place = 0

    def accept(self, logits: Logits) -> Delta | None:
        """Choose the next token from float32[vocabulary], and say what it adds to the answer; None for a forced token.

        Raises `EngineFailed` where the logits are no numbers, and whatever the tokenizer raises.
        """
        if self._place < len(self._known):
            self.token = self._known[self._place]
            self._place += 1
            return None
        if self._sampler is None:  # only now, for it may hold arrays over the vocabulary, and many sequences wait
            generation = self.job.generation
            self._sampler = Sampler(generation.sampling, self.index, generation.prompt, self._vocab_size)
        self.token = self._sampler.choose(logits)
        self._known.append(self.token)
        self._place += 1
        self._left -= 1
        if self.token in self._ends:
            return self._finish("", "stop")
        text, stopped = self._stops.feed(self._detokenizer.feed(self.token))
        if stopped:
            return Delta(self.index, text, 1, "stop")
        if self._left == 0:
            return self._finish(text, "length")
        return Delta(self.index, text, 1)

    def _finish(self, text: str, reason: FinishReason) -> Delta:
        """Show what was held back, which may still hold a stop string."""
        rest, stopped = self._stops.feed(self._detokenizer.flush())
        if stopped:
            return Delta(self.index, text + rest, 1, "stop")
        return Delta(self.index, text + rest + self._stops.flush(), 1, reason)


def batch_inputs(sequences: list[Sequence]) -> tuple["np.ndarray[tuple[int], np.dtype[np.int64]]", ...]:
    """The newest tokens and the lengths of some sequences, each int64[n]."""
    tokens = np.fromiter((sequence.token for sequence in sequences), np.int64, len(sequences))
    lengths = np.fromiter((sequence.length for sequence in sequences), np.int64, len(sequences))
    return tokens, lengths
