"""The windows that are decoded together: their rows join and leave between two steps."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from backends.transcription.cross_cache import CrossCache
from backends.transcription.job import (
    NO_SPEECH_THRESHOLD,
    Attempt,
    WindowResult,
    WindowTask,
    best_attempt,
    compression_ratio,
)
from backends.transcription.log_mel import Floats
from backends.transcription.model_config import ModelConfig
from backends.transcription.networks import Networks
from backends.transcription.rules import TokenRules, softmax_at
from backends.transcription.self_cache import SelfCache, assemble
from backends.transcription.stats import Stats
from backends.transcription.tokens import WhisperTokens

FRAMES_PER_POSITION = 2
"""Frames of the spectrogram that become one position of the encoder."""


class Row:
    """One window in the batch: its slot of the cross cache, its row of the self cache, and its tokens."""

    def __init__(self, task: WindowTask, slot: int) -> None:
        self.task = task
        self.slot = slot
        self.language = task.job.language
        self.attempts: list[Attempt] = []
        self.result: WindowResult | None = None
        self.no_speech_prob = 0.0
        self.num_generated = self.num_prompt_tokens = 0
        self.cache: SelfCache | None = None
        self.index = 0
        self.begin()

    @property
    def temperature(self) -> float:
        """The temperature of the current attempt."""
        return self.task.job.temperatures[len(self.attempts)]

    def begin(self) -> None:
        """Begin an attempt: nothing is read and nothing written."""
        self.cache = None
        self.length = 0
        self.tokens: list[int] = []
        self.logprobs: list[float] = []


class DecoderBatch:
    """The rows of windows with the same number of encoder positions. One thread uses it."""

    def __init__(
        self,
        networks: Networks,
        config: ModelConfig,
        tokens: WhisperTokens,
        log_mel: Callable[[Floats, int], Floats],
        positions: int,
        max_rows: int,
        stats: Stats,
    ) -> None:
        """`max_rows` is the most rows at a time; their memory is freed with this object. `log_mel` is a `LogMel`."""
        self._networks = networks
        self._config = config
        self._tokens = tokens
        self._log_mel = log_mel
        self._rules = TokenRules(config)
        self._cross = CrossCache(config, max_rows, positions)
        self._stats = stats
        self.rows: list[Row] = []
        """The rows, in the order of their slots after `step` and `start`."""

    def start(self, tasks: Sequence[WindowTask]) -> None:
        """Encode windows, and add a row for each that has its first token."""
        self._compact()
        first = len(self.rows)
        frames = self._cross.positions * FRAMES_PER_POSITION
        mel = np.stack([self._log_mel(task.samples, frames) for task in tasks])
        self._networks.encode(mel, self._cross, first)
        self._stats.windows += len(tasks)
        self._stats.audio_seconds += sum(task.window.seconds for task in tasks)
        rows = [Row(task, first + number) for number, task in enumerate(tasks)]
        self.rows += rows
        self._prefill(rows)

    def step(self) -> None:
        """Add a token to each row; begin those again that have failed an attempt."""
        self._compact()
        for row in self.rows:
            if row.cache is None:
                self._prefill([row])
        rows = self.rows
        if not rows or any(row.result is not None or row.cache is None for row in rows):
            return  # an attempt ended with its first token: the row leaves, or begins again, before the others go on
        logits, cache = self._feed([row.tokens[-1:] for row in rows], rows, self._gather(rows))
        for index, row in enumerate(rows):
            row.cache, row.index = cache, index
            self._write(row, logits[index])

    def remove(self, leaves: Callable[[Row], bool]) -> None:
        """Remove the rows for which `leaves` is true."""
        self.rows = [row for row in self.rows if not leaves(row)]

    def _compact(self) -> None:
        """Move the last rows into the slots that are free, so that the rows have the first slots."""
        taken = {row.slot for row in self.rows}
        free = [slot for slot in range(len(self.rows)) if slot not in taken]
        for row in self.rows:
            if row.slot >= len(self.rows):
                target = free.pop()
                self._cross.copy(row.slot, target)
                row.slot = target
        self.rows.sort(key=lambda row: row.slot)

    def _gather(self, rows: Sequence[Row]) -> SelfCache:
        """Return the cache of the rows: the last step's, unless rows have joined or left since."""
        sources = [(row.cache, row.index) for row in rows if row.cache is not None]
        cache = sources[0][0]
        if len(sources) == cache.num_rows and all(
            found is cache and index == number for number, (found, index) in enumerate(sources)
        ):
            return cache
        return assemble(sources, self._networks.to_tensor)

    def _feed(
        self, new: Sequence[Sequence[int]], rows: Sequence[Row], past: SelfCache | None
    ) -> tuple[Floats, SelfCache]:
        """Have the decoder read new tokens of rows with adjacent slots; return the logits after the last of each."""
        longest = max(map(len, new))
        ids = np.zeros((len(rows), longest), np.int64)
        positions = np.zeros((len(rows), longest), np.int64)
        for number, (tokens, row) in enumerate(zip(new, rows, strict=True)):
            if tokens:
                ids[number, longest - len(tokens) :] = tokens
                positions[number, longest - len(tokens) :] = np.arange(row.length, row.length + len(tokens))
            row.length += len(tokens)
        self._stats.runs += 1
        return self._networks.decode(ids, positions, list(map(len, new)), past, self._cross, rows[0].slot)

    def _prefill(self, rows: Sequence[Row]) -> None:
        """Have rows with adjacent slots read their prompts, and write the first token of each."""
        for row in rows:
            if row.language is None and row.task.job.prompt:
                # The prompt must not decide the language.
                logits, _ = self._feed([self._tokens.prompt(())], [row], None)
                self._set_language(row, logits[0])
                row.begin()
        logits, cache = self._feed([self._tokens.prompt(row.task.job.prompt) for row in rows], rows, None)
        for row, values in zip(rows, logits, strict=True):
            row.no_speech_prob = softmax_at(values, self._config.tokens.no_speech)
            if row.language is None:
                self._set_language(row, values)
        choices = [self._tokens.task_tokens(row.language or "en", row.task.job.task) for row in rows]
        if any(choices):
            last, cache = self._feed(choices, rows, cache)
            logits = np.where(np.array(list(map(len, choices)))[:, None] > 0, last, logits)
        for index, row in enumerate(rows):
            row.cache, row.index, row.num_prompt_tokens = cache, index, row.length
            self._write(row, logits[index])

    def _set_language(self, row: Row, logits: Floats) -> None:
        """Take the likeliest language after the start of the transcript, for the whole job if there is speech."""
        ids = self._tokens.language_ids
        row.language = self._tokens.codes[int(ids[logits[ids].argmax()])]
        if softmax_at(logits, self._config.tokens.no_speech) <= NO_SPEECH_THRESHOLD:
            row.task.job.language = row.language

    def _write(self, row: Row, logits: Floats) -> None:
        """Add the next token to a row, or end its attempt."""
        job, config = row.task.job, self._config
        token, logprob = self._rules.choose(logits, row.tokens, temperature=row.temperature, random=job.random)
        row.num_generated += 1
        self._stats.tokens += 1
        row.logprobs.append(logprob)
        if token == config.tokens.end_of_text:
            self._end_attempt(row)
            return
        row.tokens.append(token)
        if len(row.tokens) >= min(config.max_tokens // 2, config.max_tokens - row.num_prompt_tokens):
            self._end_attempt(row)

    def _end_attempt(self, row: Row) -> None:
        attempt = Attempt(
            row.temperature,
            tuple(row.tokens),
            tuple(row.logprobs[: len(row.tokens)]),
            sum(row.logprobs) / (len(row.tokens) + 1),
            compression_ratio(self._tokens.decode(row.tokens)),
        )
        row.attempts.append(attempt)
        if attempt.needs_fallback(row.no_speech_prob) and len(row.attempts) < len(row.task.job.temperatures):
            self._stats.retries += 1
            row.begin()
            return
        result = WindowResult(
            row.task.number,
            row.task.window,
            row.language or "en",
            best_attempt(row.attempts),
            row.no_speech_prob,
            row.num_prompt_tokens,
            row.num_generated,
        )
        if row.task.job.words and not result.is_silence:
            result = self._aligned(row, result)
        row.result = result

    def _aligned(self, row: Row, result: WindowResult) -> WindowResult:
        """Have the decoder read its tokens again, and add the attention of its alignment heads to the result."""
        tokens = result.attempt.tokens
        if not any(map(self._tokens.is_text, tokens)):
            return result
        start = [
            *self._tokens.prompt(()),
            *self._tokens.task_tokens(result.language, row.task.job.task),
        ]
        attention = self._networks.align(np.array([*start, *tokens], np.int64), self._cross, row.slot)
        # A token is predicted while the one before it is read.
        return replace(result, attention=attention[:, len(start) - 1 :])
