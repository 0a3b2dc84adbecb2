"""A media loader, and a web server on loopback to fetch from."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from typing import Any

import pytest

from gateway.media.loader import MediaLoader
from gateway.settings import Settings
from tests.unit.gateway.media.media_stubs import AutoBudgetLoader, StubSite


@pytest.fixture
async def site() -> AsyncGenerator[StubSite]:
    site = StubSite()
    server = await asyncio.start_server(site.serve, "127.0.0.1", 0)
    site.port = server.sockets[0].getsockname()[1]
    yield site
    server.close()


@pytest.fixture
async def make_media(monkeypatch: pytest.MonkeyPatch) -> AsyncGenerator[Callable[..., MediaLoader]]:
    loaders = []

    def make(resolve: Any = None, **settings: Any) -> MediaLoader:
        extra = {} if resolve is None else {"resolve": resolve}
        loaders.append(AutoBudgetLoader(Settings(**{"media_timeout": 5.0, **settings}), **extra))
        # The machine may be busy, so wall time is not limited, except in tests of these limits.
        if settings.get("document_timeout", 20) > 10:
            loaders[-1]._document_pool._wall_timeout = 120.0
        if "picture_timeout" not in settings:
            loaders[-1]._image_pool._wall_timeout = 120.0
        return loaders[-1]

    yield make
    for media in loaders:
        await media.close()


@pytest.fixture
def media(make_media: Callable[..., MediaLoader]) -> MediaLoader:
    """A loader that may connect to loopback."""
    return make_media(media_allow_private=True)
