"""One answer on its way: its place in a row, and what turns its tokens into text."""

import time
from dataclasses import dataclass, field

import numpy as np
from tokenizers import Tokenizer

from backends.llm.batching.detokenizer import Detokenizer
from backends.llm.batching.model_runner import Logits
from backends.llm.batching.sampler import Sampler
from backends.llm.batching.stop_strings import StopStrings
from backends.llm.batching.token_logprobs import compute_logprobs
from backends.llm.engine import Delta, FinishReason, Generation, Logprob, Logprobs, Matcher, TokenIds


@dataclass(slots=True, eq=False)
class SequenceGroup:
    """A generation inside the engine; its sequences share it.

    `open` counts the sequences without a finish reason. `cancelled` is set by any thread and obeyed by the engine's
    own. `prompt_logits` are kept from the first sequence for the others, so that one prompt is computed once.
    """

    generation: Generation
    num_unfinished: int
    cancelled: bool = False
    finished: bool = False
    prompt_logits: Logits | None = None
    sequences: list["Sequence"] = field(default_factory=list)


class Sequence:
    """One of the answers of a job.

    Tokens that are known already are *forced*: they run through steps as if they had been chosen, and tell nothing.
    """

    def __init__(
        self, job: SequenceGroup, index: int, *, tokenizer: Tokenizer, eos: frozenset[int], room: int, vocab_size: int
    ) -> None:
        """`room` is how many tokens the context has left behind the prompt, at least one."""
        prompt, read, sampling = job.generation.prompt, job.generation.prefill_tokens, job.generation.sampling
        self.group = job
        self.index = index
        self.slot = -1
        self.length = 0
        """Tokens whose keys and values the row holds."""
        self.last_token = -1
        """The newest token, not yet in the row; -1 while the prompt is on its way."""
        # The model tells about the last token of a chunk alone: to hear of each, the prompt is read in steps.
        self._num_prompt_logprobs = sampling.prompt_logprobs if index == 0 else None
        stepwise = self._num_prompt_logprobs is not None
        self.prefill_tokens: TokenIds = read[:1] if stepwise else read
        """The tokens of the prompt that are read before the first `accept`."""
        self._known_tokens: list[int] = read[1:].tolist() if stepwise else []
        """What follows `to_read`, as far as it was accepted once."""
        self._num_replayed = 0
        """How much of `_known` is accepted since the row was begun."""
        self._num_reported = 0
        """How much of `_known` will not be told again."""
        self._pending_logprobs: list[Logprobs] = [(Logprob(int(prompt[0]), None, None),)] if stepwise else []
        self._num_remaining = room if sampling.max_tokens is None else min(room, sampling.max_tokens)
        self._num_generated = 0
        # Where a grammar is complete, nothing but the end of the sequence may come: it is obeyed.
        ignored = sampling.ignore_eos and job.generation.grammar is None
        self._stop_token_ids = frozenset(sampling.stop_token_ids) | (frozenset() if ignored else eos)
        self._matcher: Matcher | None = None
        self._vocab_size = vocab_size
        self._sampler: Sampler | None = None
        self._detokenizer = Detokenizer(tokenizer, prompt, special=not sampling.skip_special_tokens)
        self._stop_strings = StopStrings(sampling.stop)

    def prepare_recompute(self) -> None:
        """The row is lost: what was accepted is forced from now on, and nothing is told twice."""
        self.length = 0
        self.last_token = -1
        self._num_replayed = 0

    def sample_next(self, logits: Logits, deadline: float = 0.0) -> Delta | None:
        """Choose the next token from float32[vocabulary], and say what it adds to the answer.

        A grammar that is not ready is waited for until `deadline`, by the monotonic clock.
        None for a forced token, and where a grammar is not ready to choose: the row then runs the same token again.
        Where a grammar says late that the answer is complete, nothing is chosen, and only the end is told.
        Raises `EngineFailed` where the logits are no numbers, `InvalidValue` where a grammar is too complex, and
        whatever the tokenizer raises.
        """
        if self._num_replayed < len(self._known_tokens):
            self._replay_token(logits)
            return None
        sampling = self.group.generation.sampling
        if sampling.max_tokens == 0:  # the prompt was all that was wanted
            return self._finish("", "length", 0)
        if self._sampler is None:  # only now, for it may hold arrays over the vocabulary, and many sequences wait
            self._start_sampling()
        assert self._sampler is not None
        banned = None
        if self._matcher:
            banned = self._matcher.banned_tokens(max(0.0, deadline - time.monotonic()))
            if self._matcher.is_complete:
                return self._finish("", "stop", 0)
            if banned is None:
                self.length -= 1
                return None
            if self._num_remaining == 0:
                return self._finish("", "length", 0)
        if sampling.logprobs is None:
            token = self._sampler.sample(logits, banned)
        else:  # the sampler may write into the logits
            token = self._sampler.sample(logits.copy(), banned)
            if token not in self._stop_token_ids:
                self._pending_logprobs.append(compute_logprobs(logits, token, sampling.logprobs))
        self.last_token = token
        self._known_tokens.append(token)
        self._num_replayed = len(self._known_tokens)
        self._num_remaining -= 1
        self._num_generated += 1
        if token in self._stop_token_ids:
            return self._finish("", "stop")
        # None where it is not known yet.
        complete = self._matcher.consume(token) if self._matcher else False
        text, stopped = self._check_stop_strings(self._detokenizer.feed(token))
        if stopped:
            return self._delta(text, "stop")
        if complete:
            return self._finish(text, "stop")
        if self._num_remaining == 0 and complete is not None:
            return self._finish(text, "length")
        return self._delta(text)

    def _start_sampling(self) -> None:
        generation = self.group.generation
        self._sampler = Sampler(
            generation.sampling, self.index, generation.prompt, self._vocab_size, self._stop_token_ids
        )
        if generation.grammar:
            self._matcher = generation.grammar.new_matcher()

    def _replay_token(self, logits: Logits) -> None:
        """Take a token that is known; how likely one of the prompt was is told once."""
        self.last_token = self._known_tokens[self._num_replayed]
        count, prompt = self._num_prompt_logprobs, self.group.generation.prompt
        if count is not None and self._num_reported == self._num_replayed < len(prompt) - 1:
            self._pending_logprobs.append(compute_logprobs(logits, int(prompt[self._num_replayed + 1]), count))
            self._num_reported += 1
        self._num_replayed += 1

    def _check_stop_strings(self, text: str) -> tuple[str, bool]:
        if self._num_generated <= self.group.generation.sampling.min_tokens:
            return text, False
        return self._stop_strings.feed(text)

    def _finish(self, text: str, reason: FinishReason, num_tokens: int = 1) -> Delta:
        """Show what was held back, which may still hold a stop string."""
        rest, stopped = self._check_stop_strings(self._detokenizer.flush())
        if stopped:
            return self._delta(text + rest, "stop", num_tokens)
        return self._delta(text + rest + self._stop_strings.flush(), reason, num_tokens)

    def _delta(self, text: str, reason: FinishReason | None = None, num_tokens: int = 1) -> Delta:
        if not self._pending_logprobs:
            return Delta(self.index, text, num_tokens, reason)
        entries, self._pending_logprobs = tuple(self._pending_logprobs), []
        return Delta(self.index, text, num_tokens, reason, entries)


def decode_inputs(sequences: list[Sequence]) -> tuple["np.ndarray[tuple[int], np.dtype[np.int64]]", ...]:
    """The newest tokens and the lengths of some sequences, each int64[n]."""
    tokens = np.fromiter((sequence.last_token for sequence in sequences), np.int64, len(sequences))
    lengths = np.fromiter((sequence.length for sequence in sequences), np.int64, len(sequences))
    return tokens, lengths
