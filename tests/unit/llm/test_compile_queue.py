"""The queue of compile jobs: order, retries, and the outcomes that it remembers."""

from concurrent.futures import Future
from types import SimpleNamespace

import pytest

from backends.llm.sampling_params import StructuredOutputsParams
from backends.llm.structured_outputs import compile_queue
from backends.llm.structured_outputs.compile_queue import CompileQueue
from backends.llm.structured_outputs.compiled_grammar import CompiledGrammar
from backends.llm.structured_outputs.limits import Limits
from backends.serving.errors import InvalidValue, Overloaded

STRUCTURE = StructuredOutputsParams("regex", "a")


@pytest.fixture
def queue():
    return CompileQueue(Limits(max_slow_queue=2))


def add(queue, key):
    future: Future[CompiledGrammar] = Future()
    assert queue.refusal(key) is None
    queue.add(key, STRUCTURE, future)
    return future


def start(queue, *, slow):
    """Pop a job as if a process had started it."""
    job = queue.pop(slow=slow)
    job.num_attempts += 1
    job.pid = 1
    return job


def test_jobs_come_in_order_of_arrival_and_equal_structures_share_one(queue):
    futures = [add(queue, key) for key in (b"a", b"b", b"a")]
    assert len(queue) == 2 and queue.has_waiting
    first, second = queue.pop(slow=False), queue.pop(slow=False)
    assert (first.key, first.futures) == (b"a", [futures[0], futures[2]])
    assert second.key == b"b" and not queue.has_waiting and queue.pop(slow=False) is None


def test_cancelled_jobs_are_dropped(queue):
    cancelled, wanted = add(queue, b"a"), add(queue, b"b")
    cancelled.cancel()
    assert queue.pop(slow=False).futures == [wanted]
    assert len(queue) == 1


def test_job_that_exceeds_the_fast_limits_runs_again_as_a_slow_one(queue):
    add(queue, b"a")
    job = start(queue, slow=False)
    assert queue.failed(job, None) is None
    assert queue.pop(slow=False) is None and start(queue, slow=True) is job
    queue.succeeded(job)
    assert len(queue) == 0
    add(queue, b"a")  # its structure is remembered as slow
    assert queue.pop(slow=True).key == b"a"


def test_job_that_exceeds_the_slow_limits_is_refused_for_a_while(queue, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(compile_queue, "time", SimpleNamespace(monotonic=lambda: now[0]))
    add(queue, b"a")
    queue.failed(start(queue, slow=False), None)
    error = queue.failed(start(queue, slow=True), None)
    assert isinstance(error, InvalidValue) and "more than 1 s or 128 MB" in str(error)
    assert str(queue.refusal(b"a")) == str(error) and len(queue) == 0
    now[0] += 61
    assert queue.refusal(b"a") is None


def test_job_that_the_library_rejects_is_refused_for_ever(queue):
    add(queue, b"a")
    error = queue.failed(start(queue, slow=False), b"no text matches it.")
    assert str(error) == str(queue.refusal(b"a")) and "no text matches it." in str(error)


def test_slow_jobs_beyond_the_queue_are_overloaded(queue):
    for key in (b"a", b"b", b"c"):
        add(queue, key)
    assert queue.failed(start(queue, slow=False), None) is None
    assert queue.failed(start(queue, slow=False), None) is None
    assert isinstance(queue.failed(start(queue, slow=False), None), Overloaded)
    assert isinstance(queue.refusal(b"c"), Overloaded)  # known as slow
    assert queue.refusal(b"a") is None  # shares the job that waits
    assert queue.refusal(b"d") is None  # might be fast


def test_job_without_a_process_is_tried_three_times(queue):
    add(queue, b"a")
    add(queue, b"b")
    for attempt in (1, 2, 3):
        job = queue.pop(slow=False)
        job.num_attempts += 1
        assert job.key == b"a"
        error = queue.failed(job, None)
        assert (error is None) == (attempt < 3)
    assert isinstance(error, Overloaded) and queue.refusal(b"a") is None
    assert [job.key for job in queue.clear()] == [b"b"] and len(queue) == 0
