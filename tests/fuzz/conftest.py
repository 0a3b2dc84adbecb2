"""Fuzz tests: by default a few fixed requests. `make fuzz` sets TRITONIC_FUZZ_EXAMPLES for many random ones."""

import time
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from gateway.operations.operation import TaskOperation
from gateway.tasks.request_json import serialize
from gateway.tasks.task import Task, new_task_id
from gateway.tasks.task_queue import TaskQueue
from tests.fuzz.fuzzing import FUZZED_MODELS
from tests.wire.background_gateway import BackgroundGateway, run_in_background


async def _submit(
    self: TaskQueue,
    request: TaskOperation,
    owner: str,
    idempotency_key: str | None = None,
    webhook_url: str | None = None,
    *,
    webhook_param: str = "webhook_url",
    labels: Mapping[str, Any] | None = None,
) -> Task:
    """Check and store a request, and return a task that no database has.

    DBOS draws random numbers in threads of its own, and Hypothesis ends a test in which anything else draws some.
    """
    self._check(request)
    if webhook_url is not None:
        self.webhooks.check(webhook_url, webhook_param)
    stored = await serialize(request, owner, self._files)
    return Task(
        id=new_task_id(),
        kind=request.operation,
        model=request.model,
        state="queued",
        progress=0,
        created=time.time(),
        started=None,
        finished=None,
        request=stored,
        labels=labels or {},
    )


@pytest.fixture(scope="package")
def gateway() -> Iterator[BackgroundGateway]:
    """Run the gateway for the tests of this folder alone: other tests need tasks that are stored."""
    with pytest.MonkeyPatch.context() as patch, run_in_background(FUZZED_MODELS) as running:
        patch.setattr(TaskQueue, "submit", _submit)
        yield running
        assert running.triton.active == 0, "a request is still in progress in the model"
