"""`backends.llm.engine.Engine` over a runtime of another project, in an event loop of its own.

The life of a generation:

1. `ExternalEngine.submit` checks it against the context and the queue limits, and has the runtime check its parameters.
2. In the thread of the event loop, each answer is a task that reads the runtime's steps.
3. `AnswerText` makes text of the tokens, and finds stop strings. Each step goes to the generation's sink as a `Delta`.
4. A stop string, a disconnect or a failure closes the steps, which ends the answer in the runtime.
"""

import asyncio
import logging
import threading
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

from tokenizers import Tokenizer

from backends.llm.engine import Delta, Generation, GenerationFailed, PromptExpanded, StructureEnforcement
from backends.llm.external.answer_text import AnswerText
from backends.llm.external.runtime import AnswerStep, Runtime
from backends.llm.external.stats import ExternalStats
from backends.serving.errors import (
    Cancelled,
    ContextLengthExceeded,
    EngineFailed,
    GenerationError,
    InvalidValue,
    Overloaded,
)

_log = logging.getLogger(__name__)
_TASK_NAME = "answer"
_ABORT_SECONDS = 5.0
"""Seconds that the runtime has to end the open answers before it is closed."""


@dataclass(slots=True, eq=False)
class _Group:
    """A generation and the tasks of its unfinished answers. Only the event loop's thread uses it."""

    generation: Generation
    tasks: "set[asyncio.Task[None]]" = field(default_factory=set)
    num_unfinished: int = 0
    finished: bool = False


class ExternalEngine:
    """Runs many generations at a time on a `Runtime`."""

    def __init__(
        self,
        start_runtime: Callable[[], Coroutine[Any, Any, Runtime]],
        stats: ExternalStats,
        tokenizer: Tokenizer,
        eos: frozenset[int],
        max_waiting: int,
        *,
        structure_enforcement: StructureEnforcement = "engine",
        adapters: frozenset[str] = frozenset(),
        on_death: Callable[[], object] = lambda: None,
    ) -> None:
        """Start the event loop's thread, and the runtime in it; return when it is ready.

        The runtime runs `stats.max_rows` answers at a time, and `max_waiting` more may wait for it. `on_death` is
        called after all generations have failed because the runtime has died. Raises what `start_runtime` raises.
        """
        self.stats = stats
        self.structure_enforcement = structure_enforcement
        self.adapters = adapters
        self._tokenizer = tokenizer
        self._eos = eos
        self._max_open = stats.max_rows + max_waiting
        self._on_death = on_death
        self._groups: dict[Generation, _Group] = {}
        """Used by the event loop's thread alone."""
        self._lock = threading.Lock()
        self._num_open = 0
        self._closing = self._has_died = self._is_closed = False
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, args=[self._loop], name="llm-engine", daemon=True)
        self._thread.start()
        try:
            self._runtime = asyncio.run_coroutine_threadsafe(start_runtime(), self._loop).result()
        except BaseException:
            self._stop_loop()
            raise

    @property
    def context_length(self) -> int:
        """Maximum number of tokens of a prompt and its answer together."""
        return self._runtime.context_length

    @property
    def vocab_size(self) -> int:
        """Number of token ids: each is smaller than this."""
        return self._runtime.vocab_size

    def submit(self, generation: Generation) -> None:
        """Start a generation.

        Raises `InvalidValue` for more answers than may ever be open and for parameters that the runtime refuses,
        `ContextLengthExceeded` for a prompt that leaves no room for an answer, `Overloaded` if too many answers are
        open, and `EngineFailed` if the engine is closed or the runtime has died.
        """
        num_answers = generation.sampling.n
        if num_answers > self._max_open:
            raise InvalidValue(f"This model has room for {self._max_open} answers at once.", "n")
        if len(generation.prompt) >= self.context_length:
            raise ContextLengthExceeded(
                f"The prompt has {len(generation.prompt)} tokens; the context has room for {self.context_length}, "
                "one of them for the answer.",
                "text_input",
            )
        answers = [self._runtime.generate(generation, index) for index in range(num_answers)]
        with self._lock:
            if self._closing:
                raise EngineFailed("The engine is closed.")
            if self._runtime.has_died:
                self._loop.call_soon_threadsafe(self._report_death)
                raise EngineFailed("The engine has died.")
            if self._num_open + num_answers > self._max_open:
                raise Overloaded(f"{self._num_open} answers are open already; try again later.")
            self._num_open += num_answers
            self._loop.call_soon_threadsafe(self._start, generation, answers)

    def cancel(self, generation: Generation) -> None:
        """End a generation with `GenerationFailed(Cancelled)`. Do nothing if it has ended or is unknown."""
        with self._lock:
            if not self._is_closed:
                self._loop.call_soon_threadsafe(self._cancel, generation)

    def close(self) -> None:
        """Fail all open generations with `EngineFailed`, stop the runtime, and end the thread."""
        with self._lock:
            if self._is_closed:
                return
            self._is_closed = self._closing = True
        asyncio.run_coroutine_threadsafe(self._shut_down(), self._loop).result()
        self._stop_loop()

    @staticmethod
    def _run(loop: asyncio.AbstractEventLoop) -> None:
        asyncio.set_event_loop(loop)
        loop.run_forever()

    def _stop_loop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _shut_down(self) -> None:
        self._fail_all(EngineFailed("The engine is shutting down."))
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        answers = [task for task in tasks if task.get_name() == _TASK_NAME]
        await asyncio.wait(answers, timeout=_ABORT_SECONDS) if answers else None
        await self._runtime.close()

    def _start(self, generation: Generation, answers: "list[AsyncGenerator[AnswerStep, None]]") -> None:
        self.stats.num_open += len(answers)
        self.stats.update_rows()
        group = self._groups[generation] = _Group(generation, num_unfinished=len(answers))
        for index, steps in enumerate(answers):
            group.tasks.add(self._loop.create_task(self._read(group, index, steps), name=_TASK_NAME))

    def _cancel(self, generation: Generation) -> None:
        if group := self._groups.get(generation):
            self._fail(group, Cancelled("The request was cancelled."))

    async def _read(self, group: _Group, index: int, steps: "AsyncGenerator[AnswerStep, None]") -> None:
        """Send the steps of one answer to the sink."""
        finished = False
        try:
            text = AnswerText(group.generation, index, self._tokenizer, self._eos)
            async with aclosing(steps):
                async for step in steps:
                    if finished:  # the runtime ends the steps by itself after its last one
                        continue
                    delta = text.add(step)
                    self._count(group, index, step, delta.num_tokens)
                    finished = delta.finish_reason is not None
                    self._send(group, delta)
                    if finished and step.finish_reason is None:
                        break
            if not finished:
                raise EngineFailed("The engine ended an answer that was not finished.")
        except asyncio.CancelledError:
            raise
        except GenerationError as error:
            self._fail(group, error)
        except Exception as error:
            _log.exception("A generation failed.")
            reason = str(error) or repr(error.__cause__ or error)
            self._fail(group, EngineFailed(f"The engine failed: {reason[:500]}"))
        if self._runtime.has_died:
            self._report_death()

    def _count(self, group: _Group, index: int, step: AnswerStep, num_tokens: int) -> None:
        self.stats.tokens_out += num_tokens
        if step.num_prompt_tokens is None:
            return
        self.stats.tokens_in += step.num_prompt_tokens - step.num_cached_tokens
        self.stats.prefix_tokens_reused += step.num_cached_tokens
        if index == 0 and step.num_prompt_tokens != len(group.generation.prompt) and not group.finished:
            group.generation.sink(PromptExpanded(step.num_prompt_tokens))

    def _send(self, group: _Group, delta: Delta) -> None:
        if group.finished:
            return
        if delta.finish_reason is not None:
            group.num_unfinished -= 1
            self._release(1)
            if not group.num_unfinished:  # forgotten before the event is sent: its receiver may submit again at once
                self._forget(group)
        if delta.text or delta.num_tokens or delta.finish_reason is not None:
            group.generation.sink(delta)

    def _fail(self, group: _Group, error: GenerationError) -> None:
        """End a generation with an error, and its answers in the runtime."""
        if group.finished:
            return
        self._release(group.num_unfinished)
        self._forget(group)
        current = asyncio.current_task(self._loop)
        for task in group.tasks:
            if task is not current:
                task.cancel()
        group.generation.sink(GenerationFailed(error))

    def _fail_all(self, error: EngineFailed) -> None:
        for group in list(self._groups.values()):
            self._fail(group, error)

    def _report_death(self) -> None:
        """Fail all generations, because the runtime has died."""
        with self._lock:
            first, self._closing = not self._has_died, True
            self._has_died = True
        self._fail_all(EngineFailed("The engine has died."))
        if first:
            _log.error("The engine has died.")
            self._on_death()

    def _forget(self, group: _Group) -> None:
        group.finished = True
        self._groups.pop(group.generation, None)

    def _release(self, num_answers: int) -> None:
        with self._lock:
            self._num_open -= num_answers
        self.stats.num_open -= num_answers
        self.stats.update_rows()
