"""Runs the service for a soak: Triton with the default models, and a gateway with keys and rate limits."""

import contextlib
import os
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import psutil

from benchmarks.models import CHAT_MODEL, EMBEDDING_MODEL, IMAGE_MODEL
from benchmarks.soak import attackers
from benchmarks.soak.invalid_requests import MAX_BODY_BYTES
from benchmarks.soak.workloads import RESIZED_MODEL
from gateway.rate_rules import caller_of_key
from tritonic.embedded import EmbeddedTriton
from tritonic.gateway_process import GatewayProcess
from tritonic.ports import free_ports

KEYS = tuple(f"sk-soak-{number}" for number in range(4))
"""Keys of callers without a practical rate limit."""
RATE_LIMITED_KEY = "sk-soak-rate-limited"
"""Key of the caller that exceeds its rate limit."""
BURST = 1024
"""The number of requests to one model that one caller may have open while no other caller has any
(`gateway.models.admission`). It is the exact limit, so a burst of this size fails if a slot has leaked."""
ENVIRONMENT = {
    "TRITONIC_API_KEYS": ",".join((*KEYS, RATE_LIMITED_KEY)),
    "TRITONIC_RATE_LIMITS": f"1000000/minute,1000000000 tokens/minute,{caller_of_key(RATE_LIMITED_KEY)}=30/minute",
    "TRITONIC_MODEL_ALIASES": f"{RESIZED_MODEL}={IMAGE_MODEL}",
    "TRITONIC_MODEL_REQUESTS": str(BURST * 5 // 4),
    "TRITONIC_MAX_BODY_BYTES": str(MAX_BODY_BYTES),
    # Admission slots are per process.
    "TRITONIC_WORKERS": "1",
    "TRITONIC_TASKS_PER_KEY": "100000",
}


@dataclass(frozen=True, slots=True)
class SoakDeployment:
    """The running Triton and gateway."""

    triton: EmbeddedTriton
    gateway: GatewayProcess

    def processes(self) -> tuple[list[psutil.Process], list[psutil.Process]]:
        """Return the processes of the gateway and of Triton, the first started first in each list."""
        return _with_descendants(self.gateway.child.pid), _with_descendants(self.triton.child.pid)


def _with_descendants(pid: int) -> list[psutil.Process]:
    first = psutil.Process(pid)
    return [first, *first.children(recursive=True)]


def environment(*, attacked: bool) -> dict[str, str]:
    """Return the gateway's settings. With `attacked`, they have the attackers' key and the model names of attacks."""
    if not attacked:
        return ENVIRONMENT
    models = {"chat": CHAT_MODEL, "embedding": EMBEDDING_MODEL, "image": IMAGE_MODEL}
    aliases = ",".join(f"{alias}={models[model]}" for alias, model in attackers.ALIASES.items())
    return {
        **ENVIRONMENT,
        **attackers.ENVIRONMENT,
        "TRITONIC_API_KEYS": f"{ENVIRONMENT['TRITONIC_API_KEYS']},{attackers.ATTACKER}",
        "TRITONIC_MODEL_ALIASES": f"{ENVIRONMENT['TRITONIC_MODEL_ALIASES']},{aliases}",
    }


@contextlib.contextmanager
def deploy(repository: Path, *, attacked: bool = False) -> Iterator[SoakDeployment]:
    """Serve the models of `repository` while the block runs."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tritonic-soak-")))
        triton = stack.enter_context(EmbeddedTriton(repository))
        stack.enter_context(mock.patch.dict(os.environ, environment(attacked=attacked)))
        triton.share_secret()
        gateway = GatewayProcess("127.0.0.1", free_ports(1)[0], triton.grpc_url, folder / "gateway.log")
        gateway.start()
        stack.callback(gateway.stop)
        gateway.wait_live()
        while not gateway.has_models():
            time.sleep(0.1)
        yield SoakDeployment(triton, gateway)
