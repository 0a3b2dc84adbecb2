"""A thread that decodes what the denoising loop has finished, in batches."""

import logging
import threading
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Generic, Protocol, TypeVar

from backends.diffusion.denoising_job import DenoisingJob

_log = logging.getLogger(__name__)

MAX_BATCH_PIXELS = 1 << 20
"""Pixels of one batch together: a decoder needs about half a kilobyte of memory per pixel."""


class JobTask(Protocol):
    """Something to decode for a job. It is dropped once the job has ended, and an error of it ends the job."""

    @property
    def job(self) -> DenoisingJob:
        """The job."""


TaskT = TypeVar("TaskT", bound=JobTask)
ResultT = TypeVar("ResultT")


class DecoderThread(ABC, Generic[TaskT, ResultT]):
    """One thread that works on waiting tasks. A subclass selects batches of them, decodes them and delivers results."""

    def __init__(self, name: str) -> None:
        """`name` is that of the thread; it starts at once."""
        self._changed = threading.Condition()
        self._tasks: list[TaskT] = []
        self._closed = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def submit(self, tasks: Sequence[TaskT]) -> None:
        """Queue tasks; alike ones that are submitted together share a batch if they fit."""
        with self._changed:
            self._tasks += tasks
            self._changed.notify()

    def close(self) -> None:
        """Let the current batch end, drop the other tasks, and end the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()
        self._tasks.clear()

    @abstractmethod
    def select_batch(self) -> list[TaskT]:
        """Return tasks for the next batch; none if all have to wait. Called under the lock."""

    @abstractmethod
    def decode(self, tasks: list[TaskT]) -> list[ResultT]:
        """Return the result of each task of a batch."""

    @abstractmethod
    def deliver(self, task: TaskT, result: ResultT) -> None:
        """Call a task back with its result."""

    def _run(self) -> None:
        while tasks := self._next_batch():
            self._decode(tasks)
            del tasks  # waiting for the next batch must not keep their arrays

    def _next_batch(self) -> list[TaskT]:
        """Wait for a batch; return none once closed."""
        with self._changed:
            while True:
                self._tasks = [task for task in self._tasks if not task.job.ended]
                if self._closed:
                    return []
                if self._tasks and (batch := self.select_batch()):
                    return batch
                self._changed.wait()

    def _decode(self, tasks: list[TaskT]) -> None:
        try:
            results = self.decode(tasks)
        except Exception as error:
            if len(tasks) > 1:  # one task may have failed the whole batch
                for task in tasks:
                    self._decode([task])
                return
            _log.exception("A latent could not be decoded.")
            self.drop(tasks[0])
            tasks[0].job.on_failed(error)
        else:
            for task, result in zip(tasks, results, strict=True):
                self.deliver(task, result)

    def drop(self, task: TaskT) -> None:
        """Remove a task from the queue, if it is there."""
        with self._changed:
            self._tasks = [other for other in self._tasks if other is not task]
