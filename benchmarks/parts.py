"""The parts of the benchmarks: what each measures, and the function that does it."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.tables import Table

CHECKPOINT = "smollm2-135m-instruct"


@dataclass(frozen=True, slots=True)
class Plan:
    """What was asked for on the command line."""

    repository: Path
    model: str
    """The one that chats: its folder in the repository."""
    rounds: int
    """How often the ways that are compared take turns, after one that only warms up."""
    quick: bool
    """Fewer loads and shorter windows: a look, no figures to quote."""
    gguf: Path | None
    """The model's weights for llama.cpp; absent: made for the default model."""
    cache: Path
    """Peers, programs and converted weights are kept here between runs."""
    work: Path
    """Logs, and whatever else need not be kept."""
    peers: tuple[str, ...] = ()
    """Servers that are already running: `NAME=URL` or `NAME=MODEL@URL`."""


@dataclass(frozen=True, slots=True)
class Part:
    """A part: a line that says what it measures, and the function, which imports what it needs when it runs."""

    does: str
    run: Callable[[Plan], list[Table]]
    models: bool = True
    """Whether it needs the default models."""
    rounds: int | None = 3
    """Where nobody asks for more or fewer: what keeps everything within an hour. None: it does not go in rounds."""


def _direct(plan: Plan) -> list[Table]:
    from benchmarks import direct

    return direct.run(plan.repository, plan.model, plan.cache, quick=plan.quick)


def _gateway(plan: Plan) -> list[Table]:
    from benchmarks import beside

    return beside.run(plan.repository, plan.model, plan.rounds, plan.cache, quick=plan.quick)


def _aiperf(plan: Plan) -> list[Table]:
    from benchmarks import aiperf

    return aiperf.run(plan.repository, plan.model, plan.rounds, plan.cache, quick=plan.quick)


def _alone(plan: Plan) -> list[Table]:
    from benchmarks import alone

    return alone.run((1, 64) if plan.quick else alone.STREAMS, plan.rounds)


def _asgi(plan: Plan) -> list[Table]:
    from benchmarks import asgi

    return asgi.run(plan.cache, plan.rounds)


def _proxies(plan: Plan) -> list[Table]:
    from benchmarks import proxies

    return proxies.run(plan.cache, plan.work, plan.rounds)


def _peers(plan: Plan) -> list[Table]:
    from benchmarks import peers
    from benchmarks.gguf_q8_0 import default_gguf
    from benchmarks.servers import Setting

    gguf = plan.gguf or (default_gguf(plan.cache) if plan.model == CHECKPOINT else None)
    setting = Setting(plan.repository, plan.model, gguf, plan.cache, plan.work, max(peers.STREAMS))
    return peers.run(setting, plan.rounds, [peers.peer(each) for each in plan.peers])


def _throughput(plan: Plan) -> list[Table]:
    from benchmarks import throughput
    from benchmarks.gguf_q8_0 import default_gguf
    from benchmarks.workers import LOADS

    gguf = plan.gguf or (default_gguf(plan.cache) if plan.model == CHECKPOINT else None)
    return throughput.run(plan.repository, plan.model, gguf, plan.rounds, (1, 8) if plan.quick else LOADS)


def _prefix(plan: Plan) -> list[Table]:
    from benchmarks import chats

    return chats.prefix(plan.repository, plan.model, plan.rounds)


def _structures(plan: Plan) -> list[Table]:
    from benchmarks import chats

    return chats.structures(plan.repository, plan.model, plan.rounds)


def _embeddings(plan: Plan) -> list[Table]:
    from benchmarks import embeddings

    return embeddings.run(plan.repository, plan.rounds)


def _pictures(plan: Plan) -> list[Table]:
    from benchmarks import pictures

    return pictures.run(plan.repository, plan.rounds)


def _soak(plan: Plan) -> list[Table]:
    from benchmarks import soak

    return soak.run(plan.repository, plan.model, minutes=1.0 if plan.quick else 2.0)


PARTS = {
    "direct": Part(
        "perf_analyzer over gRPC against the chat, embedding and image models, 1 to 64 at once", _direct, rounds=None
    ),
    "gateway": Part("chats, embeddings and pictures through the gateway ÷ perf_analyzer over gRPC", _gateway),
    "aiperf": Part("chats through the gateway, asked by AIPerf ÷ perf_analyzer over gRPC: also first tokens", _aiperf),
    "alone": Part(
        "what the gateway costs in front of a scripted Triton, 1 to 1,024 streams", _alone, models=False, rounds=4
    ),
    "proxies": Part("the gateway and LiteLLM's proxy on the same work, one core each", _proxies, models=False),
    "asgi": Part("the gateway under uvicorn, Granian and Hypercorn, and as several workers", _asgi, models=False),
    "peers": Part("Tritonic, llama.cpp's server, vLLM and any --peer with the same model, over HTTP", _peers),
    "throughput": Part(
        "the bare engine, Triton, the gateway and llama.cpp with the same weights", _throughput, rounds=2
    ),
    "prefix": Part("a long prompt that comes again: the time to its first token", _prefix),
    "structures": Part("answers that follow a JSON schema ÷ free ones", _structures, rounds=2),
    "embeddings": Part("embeddings over HTTP and gRPC ÷ sentence-transformers on PyTorch", _embeddings),
    "pictures": Part("pictures over HTTP and gRPC ÷ diffusers on PyTorch", _pictures),
    "soak": Part(
        "minutes of mixed load on the real service: errors, slowness, growth of memory and files", _soak, rounds=None
    ),
}
"""In the order in which they run."""
