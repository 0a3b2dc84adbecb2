"""The denoising loop: batching of rows, fairness among requests and sizes, cancellation and failures."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pytest

from backends.diffusion.denoiser import Denoiser
from tests.unit.diffusion.scripted_denoiser import (
    CONFIG,
    LARGE,
    SMALL,
    PassthroughFamily,
    RecordedJob,
    ScriptedComponents,
    recorded_job,
)


@pytest.fixture
def components() -> ScriptedComponents:
    return ScriptedComponents()


@pytest.fixture
def denoiser(components: ScriptedComponents) -> Iterator[Denoiser]:
    """A denoiser of up to four rows, with a clock by which every run takes one second."""
    denoiser = Denoiser(components, PassthroughFamily(), CONFIG, 4, clock=itertools.count().__next__)
    yield denoiser
    components.gate.release(10_000)
    denoiser.close()


def submit(denoiser: Denoiser, *jobs: RecordedJob) -> None:
    for job in jobs:
        denoiser.submit(job.job)


def wait_for_end(*jobs: RecordedJob) -> None:
    for job in jobs:
        assert job.ended.wait(60)


def test_rows_join_at_any_step_and_leave_when_they_are_done(components: ScriptedComponents, denoiser: Denoiser) -> None:
    first, second = recorded_job(1, runs=3), recorded_job(2, runs=3)
    submit(denoiser, first)
    assert components.begun.acquire(timeout=60)
    submit(denoiser, second)
    components.gate.release()
    components.finish_runs(3)
    wait_for_end(first, second)
    assert [run.timesteps for run in components.runs] == [[0], [1, 0], [2, 1], [2]]
    assert [run.numbers for run in components.runs] == [[1], [1, 2], [1, 2], [2]]
    assert (first.done[0].sample == 3).all()
    assert (second.done[0].sample == 6).all()
    assert first.progress == pytest.approx([1 / 3, 2 / 3, 1])


def test_guidance_doubles_only_the_guided_rows(components: ScriptedComponents, denoiser: Denoiser) -> None:
    blocker, guided, plain = recorded_job(9, runs=1), recorded_job(2, runs=1, negative=1), recorded_job(5, runs=1)
    submit(denoiser, blocker)
    assert components.begun.acquire(timeout=60)
    submit(denoiser, guided, plain)
    components.gate.release()
    components.finish_runs(1)
    wait_for_end(guided, plain)
    assert components.runs[1].numbers == [2, 5, 1]
    assert (guided.done[0].sample == 1 + 3 * (2 - 1)).all()
    assert (plain.done[0].sample == 5).all()


def test_batches_are_split_to_the_size_that_the_component_takes(
    components: ScriptedComponents, denoiser: Denoiser
) -> None:
    job = recorded_job(2, runs=1, images=4, negative=1)
    submit(denoiser, job)
    components.finish_runs(2)
    wait_for_end(job)
    assert [len(run.numbers) for run in components.runs] == [6, 2]
    assert all((row.sample == 4).all() for row in job.done)
    assert denoiser.stats.runs == 1
    assert denoiser.stats.steps == 4


def test_a_request_for_many_images_does_not_delay_one_for_a_single_image(
    components: ScriptedComponents, denoiser: Denoiser
) -> None:
    many, single = recorded_job(1, runs=1, images=9), recorded_job(2, runs=1)
    submit(denoiser, many)
    assert components.begun.acquire(timeout=60)
    submit(denoiser, single)
    assert (denoiser.stats.rows_active, denoiser.stats.rows_waiting) == (4, 6)
    components.gate.release()
    components.finish_runs(1)
    wait_for_end(single)
    assert not many.ended.is_set()
    components.finish_runs(1)
    wait_for_end(many)
    assert [run.numbers for run in components.runs] == [[1] * 4, [1, 2, 1, 1], [1, 1]]
    assert sorted(row.index for row in many.done) == list(range(9))


def test_images_of_several_sizes_take_turns(components: ScriptedComponents, denoiser: Denoiser) -> None:
    small, large = recorded_job(1, runs=4, shape=SMALL), recorded_job(2, runs=4, shape=LARGE)
    submit(denoiser, small)
    assert components.begun.acquire(timeout=60)
    submit(denoiser, large)
    components.gate.release()
    components.finish_runs(7)
    wait_for_end(small, large)
    sides = [run.shape[-1] for run in components.runs]
    assert sorted(sides) == [2] * 4 + [4] * 4
    assert all(sides[:6].count(side) == 3 for side in (2, 4))


def test_a_size_that_costs_more_gets_fewer_steps(components: ScriptedComponents) -> None:
    """Both sizes get equal time: three steps of the small one for each step of the large one."""
    now = 0.0

    def clock() -> float:
        return now

    class SlowComponents(ScriptedComponents):
        def run(self, name: str, inputs: Mapping[str, Any], outputs: Sequence[str]) -> dict[str, Any]:
            nonlocal now
            now += 3 if inputs["sample"].shape[-1] == 4 else 1
            return super().run(name, inputs, outputs)

    slow = SlowComponents()
    denoiser = Denoiser(slow, PassthroughFamily(), CONFIG, 4, clock=clock)
    try:
        small, large = recorded_job(1, runs=30, shape=SMALL), recorded_job(2, runs=30, shape=LARGE)
        submit(denoiser, small, large)
        slow.finish_runs(28)
        sides = [run.shape[-1] for run in slow.runs[:28]]
        assert 19 <= sides.count(2) <= 22
    finally:
        slow.gate.release(1000)
        denoiser.close()


def test_a_cancelled_job_is_in_no_further_run(components: ScriptedComponents, denoiser: Denoiser) -> None:
    leaver, stayer = recorded_job(1, runs=50), recorded_job(2, runs=3)
    submit(denoiser, leaver)
    assert components.begun.acquire(timeout=60)
    submit(denoiser, stayer)
    denoiser.cancel(leaver.job)
    assert denoiser.stats.rows_active == 0
    components.gate.release()
    components.finish_runs(3)
    wait_for_end(stayer)
    assert [run.numbers for run in components.runs] == [[1], [2], [2], [2]]
    assert not leaver.progress
    assert not leaver.ended.is_set()


def test_a_job_at_fault_fails_alone(components: ScriptedComponents, denoiser: Denoiser) -> None:
    blocker, bad, good = recorded_job(5, runs=1), recorded_job(99, runs=2), recorded_job(3, runs=2)
    submit(denoiser, blocker)
    assert components.begun.acquire(timeout=60)
    submit(denoiser, bad, good)
    components.gate.release(1000)
    wait_for_end(bad, good)
    assert isinstance(bad.error, RuntimeError)
    assert good.error is None
    assert (good.done[0].sample == 6).all()


def test_previews_are_sent_after_the_scheduled_runs(components: ScriptedComponents, denoiser: Denoiser) -> None:
    job = recorded_job(1, runs=6, images=2, previews={2: 0, 4: 1})
    submit(denoiser, job)
    components.finish_runs(6)
    wait_for_end(job)
    assert job.previews == [(0, 0), (1, 0), (0, 1), (1, 1)]


def test_closing_fails_open_jobs_and_refuses_new_ones(components: ScriptedComponents) -> None:
    denoiser = Denoiser(components, PassthroughFamily(), CONFIG, 4)
    job, late = recorded_job(1, runs=100_000), recorded_job(2)
    submit(denoiser, job)
    components.gate.release(50)
    assert components.begun.acquire(timeout=60)
    components.gate.release(100_000)
    denoiser.close()
    submit(denoiser, late)
    assert "unloaded" in str(job.error)
    assert "unloaded" in str(late.error)
