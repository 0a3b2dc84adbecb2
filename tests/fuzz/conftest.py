"""Fuzz tests: by default a few fixed requests. `make fuzz` sets TRITONIC_FUZZ_EXAMPLES for many random ones."""

from collections.abc import Iterator

import pytest

from tests.fuzz.fuzzing import FUZZED_MODELS
from tests.wire.background_gateway import BackgroundGateway, run_in_background


@pytest.fixture(scope="session")
def gateway() -> Iterator[BackgroundGateway]:
    with run_in_background(FUZZED_MODELS) as running:
        yield running
        assert running.triton.active == 0, "a request is still in progress in the model"
