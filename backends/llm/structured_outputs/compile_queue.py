"""The queue of compile jobs, and the outcomes that are remembered so that a job need not run again.

It decides which job runs next and what follows from a job's failure. It starts no processes: `GrammarCompiler` does.
"""

import math
import time
from collections import OrderedDict, deque
from concurrent.futures import Future
from typing import Any

from backends.llm.sampling_params import StructuredOutputsParams
from backends.llm.structured_outputs.compile_job import CompileJob
from backends.llm.structured_outputs.compiled_grammar import CompiledGrammar
from backends.llm.structured_outputs.limits import Limits
from backends.serving.errors import GenerationError, InvalidValue, Overloaded

_RETRY_SECONDS = 60.0
"""Seconds during which a structure that exceeded its limits is refused at once. Later the machine may be less busy."""
_MAX_ATTEMPTS = 3
"""Attempts to get a process for a job."""
_MAX_REMEMBERED = 256
"""Most structures that are remembered as slow, and most that are remembered as refused."""


class CompileQueue:
    """Fast and slow jobs by structure, in order of arrival.

    Every job begins as a fast one, unless its structure is remembered as slow. A fast job that exceeds
    `Limits.fast_compile_seconds` runs again as a slow one, behind all other slow jobs. Equal structures share one job.

    No method may be called from two threads at once.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._jobs: dict[bytes, CompileJob] = {}
        """Every job that has not ended, waiting or running."""
        self._fast: deque[CompileJob] = deque()
        self._slow: deque[CompileJob] = deque()
        self._slow_keys: OrderedDict[bytes, None] = OrderedDict()
        self._rejected: OrderedDict[bytes, tuple[float, str]] = OrderedDict()
        """Until when, in seconds of the monotonic clock, a structure is refused, and why."""

    def __len__(self) -> int:
        return len(self._jobs)

    @property
    def has_waiting(self) -> bool:
        """True if any job waits for a process."""
        return bool(self._fast or self._slow)

    def refusal(self, key: bytes) -> GenerationError | None:
        """Return the error with which a structure is refused at once; None if it may be added."""
        until, reason = self._rejected.get(key, (0.0, ""))
        if time.monotonic() < until:
            self._rejected.move_to_end(key)
            return _rejection(reason)
        if key in self._slow_keys and key not in self._jobs and len(self._slow) >= self._limits.max_slow_queue:
            return self._overloaded()
        return None

    def add(self, key: bytes, structure: StructuredOutputsParams, future: "Future[CompiledGrammar]") -> None:
        """Queue a structure, or add `future` to the job that compiles it already."""
        job = self._jobs.get(key)
        if job is None:
            job = self._jobs[key] = CompileJob(key, structure, is_slow=key in self._slow_keys)
            (self._slow if job.is_slow else self._fast).append(job)
        job.futures.append(future)

    def pop(self, *, slow: bool) -> CompileJob | None:
        """Return the next job that is still wanted; None if none waits. Cancelled jobs are dropped."""
        queue = self._slow if slow else self._fast
        while queue:
            job = queue.popleft()
            job.futures = [future for future in job.futures if not future.cancelled()]
            if job.futures:
                return job
            self.discard(job)
        return None

    def discard(self, job: CompileJob) -> None:
        """Forget a job that has ended."""
        del self._jobs[job.key]

    def succeeded(self, job: CompileJob) -> None:
        """Forget a job whose structure was compiled; remember if that was slow."""
        if job.is_slow:
            _remember(self._slow_keys, job.key, None)
        self.discard(job)

    def failed(self, job: CompileJob, reason: bytes | None) -> GenerationError | None:
        """Return the error of a job that failed; None if it was queued once more.

        `reason` is the library's error message. None: the process ended without one, because it exceeded its time or
        memory, or, if the job has no `pid`, because it could not be started.
        """
        error = self._outcome(job, reason)
        if error is not None:
            self.discard(job)
        return error

    def _outcome(self, job: CompileJob, reason: bytes | None) -> GenerationError | None:
        limits = self._limits
        if reason is None and not job.pid:
            if job.num_attempts < _MAX_ATTEMPTS:
                (self._slow if job.is_slow else self._fast).appendleft(job)
                return None
            return Overloaded("No process could be started for this structure; try again later.")
        if reason is None and not job.is_slow:
            _remember(self._slow_keys, job.key, None)
            if len(self._slow) >= limits.max_slow_queue:
                return self._overloaded()
            job.is_slow = True
            self._slow.append(job)
            return None
        if reason is None:
            until = time.monotonic() + _RETRY_SECONDS
            text = f"it takes more than {limits.compile_seconds:g} s or {limits.memory_bytes // 2**20} MB to compile."
        else:
            until, text = math.inf, reason.decode(errors="replace")
        _remember(self._rejected, job.key, (until, text))
        return _rejection(text)

    def _overloaded(self) -> Overloaded:
        return Overloaded(f"{len(self._slow)} structures that take long to compile are waiting; try again later.")

    def clear(self) -> list[CompileJob]:
        """Forget all jobs, waiting or running, and return them."""
        jobs = list(self._jobs.values())
        self._jobs.clear()
        return jobs


def _remember(known: OrderedDict[bytes, Any], key: bytes, outcome: object) -> None:
    """Store an outcome, and drop the oldest if there are too many."""
    known[key] = outcome
    if len(known) > _MAX_REMEMBERED:
        known.popitem(last=False)


def _rejection(reason: str) -> InvalidValue:
    return InvalidValue(f"This cannot be enforced: {reason}", "structured_outputs")
