"""One loop for the requests of all callers: threads that each speak the next piece of the request whose turn it is."""

import logging
import math
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Protocol

from backends.speech.families.acoustic_model import Sound
from backends.speech.stats import Stats

_log = logging.getLogger(__name__)

_AHEAD = 2
"""Pieces of a request that may wait to be sent, beside those that are being spoken."""
_HEAD_START_SECONDS = 0.01
"""Most time that the second piece of a request waits until the first sound is sent, which its computation delays."""


class Speaker(Protocol):
    """Speaks one piece."""

    def __call__(self, phonemes: str, voice: str, speed: float) -> Sound:
        """Return the sound of a piece."""

    def parts(self, phonemes: str, voice: str, speed: float) -> Iterator[Sound]:
        """Yield the same sound in parts, the first as soon as it is known."""


@dataclass(eq=False, slots=True)
class SpeechJob:
    """The pieces of one request.

    The scheduler calls `on_sound` for each piece in their order (for the parts of the first one), then `on_finished`
    once; or `on_failed` once; or nothing more after `cancel`. They are called from a scheduler thread and must return
    at once. Whoever has sent a sound calls `SpeechScheduler.sent`. `pieces` is advanced by one thread at a time.
    """

    pieces: Iterator[str]
    voice: str
    speed: float
    on_sound: Callable[[Sound], None]
    on_finished: Callable[[], None]
    on_failed: Callable[[Exception], None]
    turn: int = field(default=0, init=False)
    reading: bool = field(default=False, init=False)
    exhausted: bool = field(default=False, init=False)
    ended: bool = field(default=False, init=False)
    num_read: int = field(default=0, init=False)
    num_posted: int = field(default=0, init=False)
    num_unsent: int = field(default=0, init=False)
    """Sounds that are being made or wait to be sent."""
    next_start: float = field(default=math.inf, init=False)
    """Time (`time.monotonic`) from which pieces after the first may be read."""
    spoken: dict[int, Sound] = field(default_factory=dict, init=False)
    """Sounds that wait for an earlier one, by the index of their piece."""


class SpeechScheduler:
    """Threads that speak. Requests take turns by the piece, so that a long text does not keep short ones waiting.

    Networks of speech differ in length by the durations that they predict, so pieces are not batched: each thread runs
    one. The first piece of a request is spoken without its next ones beside it until its first sound is sent, because
    they would delay that. After that the threads may speak several pieces of one request at the same time. A request
    whose sounds are not taken is not read on.
    """

    def __init__(self, speak: Speaker, num_threads: int, max_rows: int, stats: Stats | None = None) -> None:
        """Start `num_threads` threads; the oldest `max_rows` requests take turns."""
        self.stats = stats or Stats()
        self._speak = speak
        self._max_rows = max_rows
        self._max_unsent = num_threads + _AHEAD
        self._changed = threading.Condition()
        self._jobs: dict[int, SpeechJob] = {}
        self._next_turn = 0
        self._closed = False
        self._threads = [
            threading.Thread(target=self._run, name=f"speech-scheduler-{number}", daemon=True)
            for number in range(num_threads)
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, job: SpeechJob) -> None:
        """Queue a job. A job that was cancelled before is ignored."""
        with self._changed:
            if job.ended:
                return
            if not self._closed:
                self._jobs[id(job)] = job
                self._take_turn(job)
                self._count()
                self._changed.notify_all()
                return
        job.on_failed(RuntimeError("The model is being unloaded."))

    def cancel(self, job: SpeechJob) -> None:
        """Drop a job; the result of its running pieces is discarded."""
        with self._changed:
            self._end(job)

    def sent(self, job: SpeechJob) -> None:
        """Note that one more sound of a job was sent, so that it may be read on."""
        with self._changed:
            job.num_unsent -= 1
            job.next_start = 0.0
            self._changed.notify_all()

    def close(self) -> None:
        """Let the running pieces end, fail every unfinished job, and end the threads."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()
        with self._changed:
            jobs = list(self._jobs.values())
            for job in jobs:
                self._end(job)
        for job in jobs:
            job.on_failed(RuntimeError("The model is being unloaded."))

    def _run(self) -> None:
        while (job := self._next_job()) is not None:
            try:
                self._advance(job)
            except Exception as error:
                self._fail(job, error)

    def _next_job(self) -> SpeechJob | None:
        """Wait for a job that can be read on, and claim its iterator; return None once closed."""
        with self._changed:
            while not self._closed:
                now = time.monotonic()
                ready = [job for job in islice(self._jobs.values(), self._max_rows) if self._is_ready(job, now)]
                if ready:
                    job = min(ready, key=lambda job: job.turn)
                    job.reading = True
                    self._take_turn(job)
                    return job
                starts = [job.next_start - now for job in self._jobs.values() if now < job.next_start < math.inf]
                self._changed.wait(min(starts, default=None))
        return None

    def _is_ready(self, job: SpeechJob, now: float) -> bool:
        if job.reading or job.exhausted:
            return False
        return not job.num_read or (job.next_start <= now and job.num_unsent < self._max_unsent)

    def _take_turn(self, job: SpeechJob) -> None:
        job.turn, self._next_turn = self._next_turn, self._next_turn + 1

    def _advance(self, job: SpeechJob) -> None:
        """Read the next piece of a job, and speak it."""
        piece = next(job.pieces, None)
        with self._changed:
            job.reading = False
            if piece is None:
                job.exhausted = True
                self._deliver(job)
                return
            index, job.num_read = job.num_read, job.num_read + 1
            job.num_unsent += index > 0
            self._changed.notify()
        if not index:
            self._speak_first(job, piece)
            return
        sound = self._speak(piece, job.voice, job.speed)
        with self._changed:
            self.stats.pieces += 1
            self._count_sound(sound)
            job.spoken[index] = sound
            self._deliver(job)

    def _speak_first(self, job: SpeechJob, piece: str) -> None:
        """Speak the first piece of a job, and post each part at once."""
        for sound in self._speak.parts(piece, job.voice, job.speed):
            with self._changed:
                self._count_sound(sound)
                if job.ended:
                    break
                job.num_unsent += 1
                job.next_start = min(job.next_start, time.monotonic() + _HEAD_START_SECONDS)
                job.on_sound(sound)
                self._changed.notify_all()
        with self._changed:
            self.stats.pieces += 1
            job.num_posted += 1
            self._deliver(job)

    def _deliver(self, job: SpeechJob) -> None:
        """Post the sounds that are next. The lock is held, so that two threads post in order."""
        while not job.ended and job.num_posted in job.spoken:
            job.on_sound(job.spoken.pop(job.num_posted))
            job.num_posted += 1
            self._changed.notify_all()
        if job.exhausted and job.num_posted == job.num_read and not job.ended:
            self._end(job)
            job.on_finished()

    def _fail(self, job: SpeechJob, error: Exception) -> None:
        with self._changed:
            if job.ended:
                return
            self._end(job)
        _log.info("A text could not be spoken: %s", str(error)[:500])
        job.on_failed(error)

    def _end(self, job: SpeechJob) -> None:
        job.ended = job.exhausted = True
        job.spoken.clear()
        if self._jobs.pop(id(job), None) is not None:
            self._count()
            self._changed.notify_all()  # another one may take turns now

    def _count_sound(self, sound: Sound) -> None:
        self.stats.tokens += sound.num_tokens
        self.stats.frames += sound.num_frames

    def _count(self) -> None:
        self.stats.requests_speaking = min(len(self._jobs), self._max_rows)
        self.stats.requests_waiting = len(self._jobs) - self.stats.requests_speaking
