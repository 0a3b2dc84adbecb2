"""Finds the running Triton, and loads newly built models into it."""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from tritonic import runfile
from tritonic.errors import TritonicError

DEFAULT_URL = "127.0.0.1:8001"


@dataclass(frozen=True, slots=True)
class TritonEndpoint:
    """A Triton's gRPC endpoint, `host:port` or `unix:/path`, and the secret for the protocols that it restricts."""

    url: str
    secret: str = field(default="", repr=False)


def find_endpoints(state: Path, wanted: str | None = None) -> list[TritonEndpoint]:
    """Return the Triton at `wanted`; else the one that runs in `state`; else those of TRITONIC_TRITON_URLS.

    The secret of the Triton in `state` comes from its up.json, that of others from TRITONIC_TRITON_SECRET.
    """
    here = runfile.find_running(state)
    if here is not None and here.triton_grpc and wanted in (None, here.triton_grpc):
        return [TritonEndpoint(here.triton_grpc, here.triton_secret)]
    urls = wanted or os.environ.get("TRITONIC_TRITON_URLS", DEFAULT_URL)
    secret = os.environ.get("TRITONIC_TRITON_SECRET", "")
    return [TritonEndpoint(url.strip(), secret) for url in urls.split(",") if url.strip()]


@contextmanager
def load_newly_installed(state: Path, console: Console) -> Iterator[None]:
    """Load the models that the block installs or replaces into the Triton that runs in `state`, if there is one."""
    here = runfile.find_running(state)
    if here is None or not here.triton_grpc:
        yield
        return
    before = _configurations(Path(here.repository))
    try:
        yield
    finally:
        after = _configurations(Path(here.repository))
        for name in _parts_first(name for name, stat in after.items() if before.get(name) != stat):
            _load(TritonEndpoint(here.triton_grpc, here.triton_secret), name, console)


def _parts_first(names: Iterable[str]) -> list[str]:
    """Sort a model's parts, `<name>-…`, before the model: the gateway offers a pipeline as soon as it is loaded."""
    known = set(names)
    return sorted(known, key=lambda name: (any(other.startswith(f"{name}-") for other in known), name))


def _configurations(repository: Path) -> dict[str, tuple[int, int]]:
    """Return each model's inode and modification time of `config.pbtxt`. A newly installed folder has a new inode."""
    stats = ((path.parent.name, path.stat()) for path in repository.glob("*/config.pbtxt"))
    return {name: (stat.st_ino, stat.st_mtime_ns) for name, stat in stats}


def _load(server: TritonEndpoint, name: str, console: Console) -> None:
    from tritonic.models import ModelRepositoryClient

    try:
        with console.status(f"Triton loads {name} …"), ModelRepositoryClient(server.url, server.secret) as client:
            client.load(name)
    except TritonicError as error:
        console.print(f"[yellow]![/] {name} is installed, but could not be loaded. {escape(str(error))}")
    else:
        console.print(f"[green]✓[/] Triton has loaded {name}")
