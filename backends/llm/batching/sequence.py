"""One sequence: an answer in progress, from logits to tokens to text.

A sequence holds its slot number, its tokens, and its sampler, grammar matcher, detokenizer and stop strings. It does
not run the model and does not decide when it runs; `Scheduler` does.
"""

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
    """A generation inside the engine, with one sequence for each of its answers.

    `num_unfinished` counts the sequences without a finish reason. Any thread may set `cancelled`; the engine's thread
    acts on it. `prompt_logits`, float32[vocabulary], come from the first sequence that completes its prefill, so that
    the others copy the prompt instead of computing it.
    """

    generation: Generation
    num_unfinished: int
    cancelled: bool = False
    finished: bool = False
    prompt_logits: Logits | None = None
    sequences: list["Sequence"] = field(default_factory=list)


class Sequence:
    """One answer of a `SequenceGroup`.

    A token that is known already is *replayed*: it runs through a decode step as if it had just been chosen, but sends
    no event. After a preemption the generated tokens are replayed (recompute). If log probabilities of the prompt are
    requested, the prompt itself is replayed behind its first token.
    """

    def __init__(
        self,
        group: SequenceGroup,
        index: int,
        *,
        tokenizer: Tokenizer,
        eos: frozenset[int],
        max_new_tokens: int,
        vocab_size: int,
    ) -> None:
        """`max_new_tokens` is how many tokens the context leaves after the prompt, at least one."""
        generation = group.generation
        prompt, prefill_tokens, sampling = generation.prompt, generation.prefill_tokens, generation.sampling
        self.group = group
        self.index = index
        self.slot = -1
        self.length = 0
        """Number of tokens whose keys and values the slot holds."""
        self.last_token = -1
        """The newest token, whose keys and values are not yet in the slot; -1 during prefill."""
        # A prefill gives logits after its last token only. For those after every token, decode steps run the prompt.
        self._num_prompt_logprobs = sampling.prompt_logprobs if index == 0 else None
        returns_prompt_logprobs = self._num_prompt_logprobs is not None
        self.prefill_tokens: TokenIds = prefill_tokens[:1] if returns_prompt_logprobs else prefill_tokens
        """The prompt tokens to prefill before the first call of `sample_next`, int64[n]."""
        self._known_tokens: list[int] = prefill_tokens[1:].tolist() if returns_prompt_logprobs else []
        """The tokens after `prefill_tokens` that are known: the rest of the prompt, and the tokens generated so far."""
        self._num_replayed = 0
        """Number of `_known_tokens` that were taken since the prefill."""
        self._num_reported = 0
        """Number of `_known_tokens` whose prompt log probability was reported."""
        self._pending_logprobs: list[Logprobs] = (
            [(Logprob(int(prompt[0]), None, None),)] if returns_prompt_logprobs else []
        )
        self._num_remaining = (
            max_new_tokens if sampling.max_tokens is None else min(max_new_tokens, sampling.max_tokens)
        )
        self._num_generated = 0
        # A complete grammar allows nothing but the end of the sequence, so `ignore_eos` has no effect on it.
        ignores_eos = sampling.ignore_eos and generation.grammar is None
        self._stop_token_ids = frozenset(sampling.stop_token_ids) | (frozenset() if ignores_eos else eos)
        self._matcher: Matcher | None = None
        self._vocab_size = vocab_size
        self._sampler: Sampler | None = None
        self._detokenizer = Detokenizer(tokenizer, prompt, show_special_tokens=not sampling.skip_special_tokens)
        self._stop_strings = StopStrings(sampling.stop)

    def prepare_recompute(self) -> None:
        """Start over after a preemption: the known tokens will be replayed, and no event is sent twice."""
        self.length = 0
        self.last_token = -1
        self._num_replayed = 0

    def sample_next(self, logits: Logits, deadline: float = 0.0) -> Delta | None:
        """Choose the next token from float32[vocabulary], and return what it adds to the answer.

        A late grammar mask is awaited until `deadline`, in seconds of the monotonic clock. Return None for a replayed
        token, and if the mask is still missing: the next step then runs the same token again. If the grammar reports
        late that the answer is complete, no token is chosen and only the finish reason is returned.

        Raises `EngineFailed` if the logits are not numbers, `InvalidValue` if the grammar is too complex, and whatever
        the tokenizer raises.
        """
        if self._num_replayed < len(self._known_tokens):
            self._replay_token(logits)
            return None
        sampling = self.group.generation.sampling
        if sampling.max_tokens == 0:  # only the prompt was to be computed
            return self._finish("", "length", 0)
        if self._sampler is None:  # created late: it may hold arrays over the vocabulary, and many sequences wait
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
        # None means that the matcher does not know yet.
        is_complete = self._matcher.consume(token) if self._matcher else False
        text, stopped = self._check_stop_strings(self._detokenizer.feed(token))
        if stopped:
            return self._delta(text, "stop")
        if is_complete:
            return self._finish(text, "stop")
        if self._num_remaining == 0 and is_complete is not None:
            return self._finish(text, "length")
        return self._delta(text)

    def close(self) -> None:
        """Free the resources of the grammar's state. Called once the answer has ended; may be called twice."""
        if self._matcher:
            self._matcher.close()

    def _start_sampling(self) -> None:
        generation = self.group.generation
        self._sampler = Sampler(
            generation.sampling, self.index, generation.prompt, self._vocab_size, self._stop_token_ids
        )
        if generation.grammar:
            self._matcher = generation.grammar.new_matcher()

    def _replay_token(self, logits: Logits) -> None:
        """Take the next known token. A prompt token's log probability is reported the first time only."""
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
        """Return the last delta, with the text held back so far, which may still contain a stop string."""
        held_text, stopped = self._check_stop_strings(self._detokenizer.flush())
        if stopped:
            return self._delta(text + held_text, "stop", num_tokens)
        return self._delta(text + held_text + self._stop_strings.flush(), reason, num_tokens)

    def _delta(self, text: str, reason: FinishReason | None = None, num_tokens: int = 1) -> Delta:
        if not self._pending_logprobs:
            return Delta(self.index, text, num_tokens, reason)
        entries, self._pending_logprobs = tuple(self._pending_logprobs), []
        return Delta(self.index, text, num_tokens, reason, entries)


def decode_inputs(sequences: list[Sequence]) -> tuple["np.ndarray[tuple[int], np.dtype[np.int64]]", ...]:
    """Return the newest tokens and the lengths of n sequences, each int64[n]."""
    tokens = np.fromiter((sequence.last_token for sequence in sequences), np.int64, len(sequences))
    lengths = np.fromiter((sequence.length for sequence in sequences), np.int64, len(sequences))
    return tokens, lengths
