"""Fuzzing: few requests, always the same; as many as TRITONIC_FUZZ_EXAMPLES says, anew each time (`make fuzz`)."""

from collections.abc import Iterator

import pytest

from tests.fuzz.models import FUZZED
from tests.wire.background import Background, in_background


@pytest.fixture(scope="session")
def gateway() -> Iterator[Background]:
    with in_background(FUZZED) as running:
        yield running
        assert running.triton.active == 0, "a request is still at work in the model"
