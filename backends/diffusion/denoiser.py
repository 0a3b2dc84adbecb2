"""The denoising loop: continuous batching of the rows of all requests, each at its own step."""

import logging
import threading
import time
from collections.abc import Callable

import numpy as np

from backends.diffusion.components import Array, Components, run_in_batches
from backends.diffusion.denoising_job import BatchRow, DenoisingJob
from backends.diffusion.families.family import Conditioning, Family
from backends.diffusion.pipeline_config import LatentShape, PipelineConfig
from backends.diffusion.schedulers import Latent
from backends.diffusion.stats import Stats

_log = logging.getLogger(__name__)


class Denoiser:
    """One thread that runs the denoiser. Rows join the batch at any step and leave when they are done.

    Only latents of one shape can share a run: images of one size, or videos of one size and length. The next shape is
    the one that has had the least time, so that small images get as many steps as fit into the time of a large one. If
    more images wait than there are free rows, those of the request with the fewest active rows come first: a request
    for ten images does not delay a request for one.
    """

    def __init__(
        self,
        components: Components,
        family: Family,
        config: PipelineConfig,
        max_rows: int,
        stats: Stats | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`max_rows` is the most images or videos in a run; with guidance each takes two rows of the batch."""
        self._components = components
        self._family = family
        self._name = config.denoiser
        self._max_batch = config.max_batch
        self._max_rows = max_rows
        self.stats = stats or Stats()
        self._clock = clock
        self._changed = threading.Condition()
        self._jobs: list[DenoisingJob] = []
        self._time_used: dict[LatentShape, float] = {}
        self._closed = False
        self._stacked_conditions: tuple[list[BatchRow], dict[str, Array]] = ([], {})
        self._thread = threading.Thread(target=self._run, name="diffusion-denoiser", daemon=True)
        self._thread.start()

    def submit(self, job: DenoisingJob) -> None:
        """Queue a job."""
        with self._changed:
            if not self._closed:
                self._jobs.append(job)
                self._update_stats()
                self._changed.notify()
                return
        job.on_failed(RuntimeError("The model is being unloaded."))

    def cancel(self, job: DenoisingJob) -> None:
        """Remove a job; none of its rows is in the next run."""
        with self._changed:
            self._end(job)

    def close(self) -> None:
        """Let the current run end, fail every unfinished job, and end the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()
        with self._changed:
            jobs = list(self._jobs)
            for job in jobs:
                self._end(job)
        for job in jobs:
            job.on_failed(RuntimeError("The model is being unloaded."))

    def _run(self) -> None:
        while (rows := self._next_batch()) is not None:
            if not rows:
                continue
            start = self._clock()
            self._step(rows)
            shape = rows[0].job.shape
            with self._changed:
                if shape in self._time_used:
                    # The entry moves to the end: among sizes with equal times another one is next.
                    self._time_used[shape] = self._time_used.pop(shape) + self._clock() - start

    def _next_batch(self) -> list[BatchRow] | None:
        """Wait for jobs and return the rows of the next run; return None once closed."""
        with self._changed:
            while not self._jobs and not self._closed:
                # Free the arrays of finished requests.
                self._stacked_conditions = ([], {})
                self._changed.wait()
            if self._closed:
                return None
            shapes = dict.fromkeys(job.shape for job in self._jobs)
            known = {shape: seconds for shape, seconds in self._time_used.items() if shape in shapes}
            # A new size starts with the least time of the others, so that it neither waits for them nor delays them.
            least = min(known.values(), default=0.0)
            self._time_used = {shape: least for shape in shapes if shape not in known} | known
            shape = min(self._time_used, key=self._time_used.__getitem__)
            rows = self._select_rows([job for job in self._jobs if job.shape == shape])
            self._update_stats()
            return rows

    def _select_rows(self, jobs: list[DenoisingJob]) -> list[BatchRow]:
        """Return the started rows of jobs of one size, and start as many waiting ones as there is room for."""
        rows = [row for job in jobs for row in job.rows if row.started and not row.done]
        active = {job: sum(row.started and not row.done for row in job.rows) for job in jobs}
        waiting = {job: [row for row in job.rows if not row.started] for job in jobs}
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

    def _step(self, rows: list[BatchRow]) -> None:
        """Run the denoiser once and advance each row by one step."""
        try:
            outputs = self._denoise(rows)
        except Exception as error:
            jobs = list(dict.fromkeys(row.job for row in rows))
            if len(jobs) == 1:
                _log.exception("A run of %d rows failed.", len(rows))
                self._fail(jobs[0], error)
                return
            # One job may have failed the whole batch, so each runs again alone.
            for job in jobs:
                self._step([row for row in rows if row.job is job])
            return
        self.stats.runs += 1
        self.stats.steps += len(rows)
        for job in dict.fromkeys(row.job for row in rows):
            self._advance(job, [(row, output) for row, output in zip(rows, outputs, strict=True) if row.job is job])

    def _denoise(self, rows: list[BatchRow]) -> list[Latent]:
        """Return the denoiser's output of each row, after guidance: float32 of the latents' shape."""
        samples = np.stack([row.denoiser_input() for row in rows])
        timesteps = np.array([row.timestep() for row in rows], np.float32)
        guided = [i for i, row in enumerate(rows) if row.job.guided_prompt.negative is not None]
        if guided:
            samples = np.concatenate([samples, samples[guided]])
            timesteps = np.concatenate([timesteps, timesteps[guided]])
        inputs = self._family.denoiser_inputs(samples, timesteps) | self._conditions(rows, guided)
        found = run_in_batches(self._components, self._name, inputs, ["noise_pred"], self._max_batch)
        predicted = self._family.denoiser_output(found["noise_pred"].astype(np.float32, copy=False), samples.shape)
        outputs: list[Latent] = list(predicted[: len(rows)])
        for i, negative in zip(guided, predicted[len(rows) :], strict=True):
            outputs[i] = negative + np.float32(rows[i].job.guided_prompt.scale) * (outputs[i] - negative)
        return outputs

    def _conditions(self, rows: list[BatchRow], guided: list[int]) -> dict[str, Array]:
        """Stack the positive conditions of all rows and the negative ones of the guided; cached for equal rows."""
        if self._stacked_conditions[0] != rows:
            conditions: list[Conditioning] = [row.job.guided_prompt.positive for row in rows]
            conditions += [negative for i in guided if (negative := rows[i].job.guided_prompt.negative) is not None]
            stacked = {name: np.stack([condition[name] for condition in conditions]) for name in conditions[0]}
            self._stacked_conditions = (rows, stacked)
        return self._stacked_conditions[1]

    def _advance(self, job: DenoisingJob, steps: list[tuple[BatchRow, Latent]]) -> None:
        """Advance a job's rows by the denoiser's outputs, and call the job's callbacks."""
        if job.ended:
            return
        try:
            for row, output in steps:
                preview = row.advance(output)
                if preview is not None and job.on_preview is not None:
                    job.on_preview(row, job.previews[row.next_run], preview)
        except Exception as error:
            _log.exception("A step failed.")
            self._fail(job, error)
            return
        done = [row for row, _ in steps if row.done]
        if all(row.done for row in job.rows):
            with self._changed:
                self._end(job, finished=True)
        job.on_progress(job.progress())
        if done:
            job.on_finished(done)

    def _fail(self, job: DenoisingJob, error: Exception) -> None:
        with self._changed:
            self._end(job)
        job.on_failed(error)

    def _end(self, job: DenoisingJob, *, finished: bool = False) -> None:
        job.ended = job.ended or not finished
        if job in self._jobs:
            self._jobs.remove(job)
        self._update_stats()

    def _update_stats(self) -> None:
        rows = [row for job in self._jobs for row in job.rows if not row.done]
        self.stats.rows_active = sum(row.started for row in rows)
        self.stats.rows_waiting = len(rows) - self.stats.rows_active
