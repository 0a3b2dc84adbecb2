"""The text of one answer whose tokens a runtime chooses."""

from tokenizers import Tokenizer

from backends.llm.batching.detokenizer import Detokenizer
from backends.llm.batching.stop_strings import StopStrings
from backends.llm.engine import Delta, FinishReason, Generation, Logprobs
from backends.llm.external.runtime import AnswerStep


class AnswerText:
    """Turns steps into deltas, with the same rules as `batching.sequence.Sequence`."""

    def __init__(self, generation: Generation, index: int, tokenizer: Tokenizer, eos: frozenset[int]) -> None:
        """`eos` are the tokens that end an answer unless the request ignores them."""
        sampling = generation.sampling
        self.index = index
        self._sampling = sampling
        self._stop_token_ids = stop_token_ids(generation, eos)
        self._detokenizer = Detokenizer(
            tokenizer, generation.prompt, show_special_tokens=not sampling.skip_special_tokens
        )
        self._stop_strings = StopStrings(sampling.stop)
        self._num_generated = 0

    def add(self, step: AnswerStep) -> Delta:
        """Return what a step adds to the answer. A delta with a finish reason is the last."""
        if self._sampling.max_tokens == 0:  # the runtime generates at least one token
            return Delta(self.index, "", 0, "length", step.prompt_logprobs)
        text, count = "", 0
        for token in step.token_ids:
            count += 1
            self._num_generated += 1
            if token in self._stop_token_ids:
                return self._finish(text, "stop", count, self._logprobs(step, count - 1))
            added, stopped = self._check_stop_strings(self._detokenizer.feed(token))
            text += added
            if stopped:
                return Delta(self.index, text, count, "stop", self._logprobs(step, count))
        logprobs = self._logprobs(step, count)
        if step.finish_reason is None:
            return Delta(self.index, text, count, None, logprobs)
        return self._finish(text, step.finish_reason, count, logprobs)

    def _logprobs(self, step: AnswerStep, count: int) -> tuple[Logprobs, ...]:
        """Return the entries of the prompt, and of the first `count` tokens of the step."""
        return step.prompt_logprobs + step.logprobs[:count]

    def _check_stop_strings(self, text: str) -> tuple[str, bool]:
        if self._num_generated <= self._sampling.min_tokens:
            return text, False
        return self._stop_strings.feed(text)

    def _finish(self, text: str, reason: FinishReason, count: int, logprobs: tuple[Logprobs, ...]) -> Delta:
        """Return the last delta, with the text held back so far, which may still contain a stop string."""
        held_text, stopped = self._check_stop_strings(self._detokenizer.flush())
        if stopped:
            return Delta(self.index, text + held_text, count, "stop", logprobs)
        return Delta(self.index, text + held_text + self._stop_strings.flush(), count, reason, logprobs)


def stop_token_ids(generation: Generation, eos: frozenset[int]) -> frozenset[int]:
    """Return the tokens that end an answer.

    A complete structure allows nothing but the end of the sequence, so `ignore_eos` has no effect on it.
    """
    sampling = generation.sampling
    ignores_eos = sampling.ignore_eos and sampling.structured_outputs is None
    return frozenset(sampling.stop_token_ids) | (frozenset() if ignores_eos else eos)
