"""The loop: rows of all requests go through the denoiser together, each at a step of its own."""

import logging
import threading
import time
from collections.abc import Callable

import numpy as np

from backends.diffusion.components import Array, Components, run_in_parts
from backends.diffusion.description import Description
from backends.diffusion.families.family import Condition, Family
from backends.diffusion.figures import Figures
from backends.diffusion.rows import Job, Row
from backends.diffusion.schedulers import Latent

_log = logging.getLogger(__name__)

Shape = tuple[int, int, int]


class Denoiser:
    """One thread. Rows join at any step and leave when they are done, so nobody waits for others to finish.

    Only latents of one size can share a run. Sizes take turns by time: the one that had the least of it is next, so a
    small picture gets as many steps beside a large one as fit into the same time. Of the images that wait for a row,
    those of requests with the fewest rows come first: a request for ten images does not keep out one for a single one.
    """

    def __init__(
        self,
        components: Components,
        family: Family,
        description: Description,
        max_rows: int,
        figures: Figures | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`max_rows` is how many images of one size go side by side; with guidance each counts twice in a run."""
        self._components = components
        self._family = family
        self._name = description.denoiser
        self._max_batch = description.max_batch
        self._max_rows = max_rows
        self.figures = figures or Figures()
        self._clock = clock
        self._changed = threading.Condition()
        self._jobs: list[Job] = []
        self._spent: dict[Shape, float] = {}
        self._closed = False
        self._stacked: tuple[list[Row], dict[str, Array]] = ([], {})
        self._thread = threading.Thread(target=self._run, name="diffusion-denoiser", daemon=True)
        self._thread.start()

    def submit(self, job: Job) -> None:
        """Have a job's rows denoised."""
        with self._changed:
            if not self._closed:
                self._jobs.append(job)
                self._count()
                self._changed.notify()
                return
        job.failed(RuntimeError("The model is being unloaded."))

    def cancel(self, job: Job) -> None:
        """Forget a job: none of its rows is in the next run."""
        with self._changed:
            self._end(job)

    def close(self) -> None:
        """Let the run that has begun end, fail every job that is open, and end the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()
        with self._changed:
            jobs = list(self._jobs)
            for job in jobs:
                self._end(job)
        for job in jobs:
            job.failed(RuntimeError("The model is being unloaded."))

    def _run(self) -> None:
        while (rows := self._take()) is not None:
            if not rows:
                continue
            begun = self._clock()
            self._step(rows)
            shape = rows[0].job.shape
            with self._changed:
                if shape in self._spent:
                    # Put last, so that of two that had as much the other one is next.
                    self._spent[shape] = self._spent.pop(shape) + self._clock() - begun

    def _take(self) -> list[Row] | None:
        """Wait for rows, and choose those of the next run; None at the end."""
        with self._changed:
            while not self._jobs and not self._closed:
                # Nothing is kept of requests that are over.
                self._stacked = ([], {})
                self._changed.wait()
            if self._closed:
                return None
            shapes = dict.fromkeys(job.shape for job in self._jobs)
            known = {shape: spent for shape, spent in self._spent.items() if shape in shapes}
            # A size that comes anew has had as much as the others: it neither waits for them nor holds them up.
            least = min(known.values(), default=0.0)
            self._spent = {shape: least for shape in shapes if shape not in known} | known
            shape = min(self._spent, key=self._spent.__getitem__)
            rows = self._rows([job for job in self._jobs if job.shape == shape])
            self._count()
            return rows

    def _rows(self, jobs: list[Job]) -> list[Row]:
        """The rows that are on their way, and as many more as there is room for."""
        rows = [row for job in jobs for row in job.rows if row.begun and not row.done]
        active = {job: sum(row.begun and not row.done for row in job.rows) for job in jobs}
        waiting = {job: [row for row in job.rows if not row.begun] for job in jobs}
        while len(rows) < self._max_rows and (open_jobs := [job for job in jobs if waiting[job]]):
            job = min(open_jobs, key=active.__getitem__)  # the first of several
            row = waiting[job].pop(0)
            active[job] += 1
            try:
                row.begin()
            except Exception as error:
                waiting[job].clear()
                self._fail(job, error)
                rows = [row for row in rows if row.job is not job]
            else:
                rows.append(row)
        return rows

    def _step(self, rows: list[Row]) -> None:
        """One run of the denoiser and one step of each row."""
        try:
            outputs = self._denoise(rows)
        except Exception as error:
            jobs = list(dict.fromkeys(row.job for row in rows))
            if len(jobs) == 1:
                _log.exception("A run of %d rows failed.", len(rows))
                self._fail(jobs[0], error)
                return
            # One of them may be at fault for all, so each is tried alone.
            for job in jobs:
                self._step([row for row in rows if row.job is job])
            return
        self.figures.runs += 1
        self.figures.steps += len(rows)
        for job in dict.fromkeys(row.job for row in rows):
            self._advance(job, [(row, output) for row, output in zip(rows, outputs, strict=True) if row.job is job])

    def _denoise(self, rows: list[Row]) -> list[Latent]:
        """What the denoiser says of each row, after guidance: float32[C, h, w]."""
        samples = np.stack([row.shown() for row in rows])
        timesteps = np.array([row.job.plan.timesteps[row.run] for row in rows], np.float32)
        led = [place for place, row in enumerate(rows) if row.job.guided.away is not None]
        if led:
            samples = np.concatenate([samples, samples[led]])
            timesteps = np.concatenate([timesteps, timesteps[led]])
        inputs = self._family.inputs(samples, timesteps) | self._conditions(rows, led)
        found = run_in_parts(self._components, self._name, inputs, ["noise_pred"], self._max_batch)
        predicted = self._family.output(found["noise_pred"].astype(np.float32, copy=False), samples.shape)
        outputs: list[Latent] = list(predicted[: len(rows)])
        for place, away in zip(led, predicted[len(rows) :], strict=True):
            outputs[place] = away + np.float32(rows[place].job.guided.scale) * (outputs[place] - away)
        return outputs

    def _conditions(self, rows: list[Row], led: list[int]) -> dict[str, Array]:
        """The conditions of all rows, and then of what some are led away from. Kept while the rows are the same."""
        if self._stacked[0] != rows:
            conditions: list[Condition] = [row.job.guided.towards for row in rows]
            conditions += [away for place in led if (away := rows[place].job.guided.away) is not None]
            names = conditions[0]
            self._stacked = (rows, {name: np.stack([each[name] for each in conditions]) for name in names})
        return self._stacked[1]

    def _advance(self, job: Job, steps: list[tuple[Row, Latent]]) -> None:
        """Take the steps of a job's rows, and tell it."""
        if job.ended:
            return
        try:
            for row, output in steps:
                seen = row.advance(output)
                if seen is not None and job.previewed is not None:
                    job.previewed(row, job.previews[row.run], seen)
        except Exception as error:
            _log.exception("A step failed.")
            self._fail(job, error)
            return
        done = [row for row, _ in steps if row.done]
        if all(row.done for row in job.rows):
            with self._changed:
                self._end(job, finished=True)
        job.stepped(job.share())
        if done:
            job.finished(done)

    def _fail(self, job: Job, error: Exception) -> None:
        with self._changed:
            self._end(job)
        job.failed(error)

    def _end(self, job: Job, *, finished: bool = False) -> None:
        job.ended = job.ended or not finished
        if job in self._jobs:
            self._jobs.remove(job)
        self._count()

    def _count(self) -> None:
        rows = [row for job in self._jobs for row in job.rows if not row.done]
        self.figures.rows_active = sum(row.begun for row in rows)
        self.figures.rows_waiting = len(rows) - self.figures.rows_active
