"""The loop of production for the tests of connections."""

from collections.abc import Callable

import pytest
import uvloop


def pytest_asyncio_loop_factories(config: pytest.Config, item: pytest.Item) -> dict[str, Callable]:
    return {"uvloop": uvloop.new_event_loop}
