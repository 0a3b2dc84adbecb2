"""The parts of the benchmarks: what each measures, and the function that does it."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.models import CHAT_MODEL
from benchmarks.tables import Table


@dataclass(frozen=True, slots=True)
class RunOptions:
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
class Benchmark:
    """A part: a line that says what it measures, and the function, which imports what it needs when it runs."""

    description: str
    run: Callable[[RunOptions], list[Table]]
    needs_models: bool = True
    """Whether it needs the default models."""
    rounds: int | None = 3
    """Where nobody asks for more or fewer: what keeps everything within an hour. None: it does not go in rounds."""


def _direct(plan: RunOptions) -> list[Table]:
    from benchmarks import triton_direct

    return triton_direct.run(plan.repository, plan.model, plan.cache, quick=plan.quick)


def _gateway(plan: RunOptions) -> list[Table]:
    from benchmarks import gateway_vs_direct

    return gateway_vs_direct.run(plan.repository, plan.model, plan.rounds, plan.cache, quick=plan.quick)


def _alone(plan: RunOptions) -> list[Table]:
    from benchmarks import gateway_overhead

    return gateway_overhead.run((1, 64) if plan.quick else gateway_overhead.STREAMS, plan.rounds)


def _proxies(plan: RunOptions) -> list[Table]:
    from benchmarks import gateway_vs_litellm

    return gateway_vs_litellm.run(plan.cache, plan.work, plan.rounds)


def _peers(plan: RunOptions) -> list[Table]:
    from benchmarks import peers
    from benchmarks.gguf_q8_0 import default_gguf
    from benchmarks.peer_servers import PeerOptions

    gguf = plan.gguf or (default_gguf(plan.cache) if plan.model == CHAT_MODEL else None)
    setting = PeerOptions(plan.repository, plan.model, gguf, plan.cache, plan.work, max(peers.STREAMS))
    return peers.run(setting, plan.rounds, [peers.parse_peer(each) for each in plan.peers])


def _throughput(plan: RunOptions) -> list[Table]:
    from benchmarks import throughput
    from benchmarks.generation_workers import LOADS
    from benchmarks.gguf_q8_0 import default_gguf

    gguf = plan.gguf or (default_gguf(plan.cache) if plan.model == CHAT_MODEL else None)
    return throughput.run(plan.repository, plan.model, gguf, plan.rounds, (1, 8) if plan.quick else LOADS)


def _prefix(plan: RunOptions) -> list[Table]:
    from benchmarks import llm_features

    return llm_features.prefix_cache(plan.repository, plan.model, plan.rounds)


def _structures(plan: RunOptions) -> list[Table]:
    from benchmarks import llm_features

    return llm_features.structured_outputs(plan.repository, plan.model, plan.rounds)


def _embeddings(plan: RunOptions) -> list[Table]:
    from benchmarks import embeddings

    return embeddings.run(plan.repository, plan.rounds)


def _pictures(plan: RunOptions) -> list[Table]:
    from benchmarks import images

    return images.run(plan.repository, plan.rounds)


def _soak(plan: RunOptions) -> list[Table]:
    from benchmarks import soak

    return soak.run(plan.repository, plan.model, minutes=1.0 if plan.quick else 2.0)


BENCHMARKS = {
    "direct": Benchmark(
        "perf_analyzer over gRPC against the chat, embedding and image models, 1 to 64 at once", _direct, rounds=None
    ),
    "gateway": Benchmark("chats, embeddings and pictures through the gateway ÷ perf_analyzer over gRPC", _gateway),
    "alone": Benchmark(
        "what the gateway costs in front of a scripted Triton, 1 to 1,024 streams", _alone, needs_models=False, rounds=4
    ),
    "proxies": Benchmark(
        "the gateway and LiteLLM's proxy on the same work, one core each", _proxies, needs_models=False
    ),
    "peers": Benchmark("Tritonic, llama.cpp's server, vLLM and any --peer with the same model, over HTTP", _peers),
    "throughput": Benchmark(
        "the bare engine, Triton, the gateway and llama.cpp with the same weights", _throughput, rounds=2
    ),
    "prefix": Benchmark("a long prompt that comes again: the time to its first token", _prefix),
    "structures": Benchmark("answers that follow a JSON schema ÷ free ones", _structures, rounds=2),
    "embeddings": Benchmark("embeddings over HTTP and gRPC ÷ sentence-transformers on PyTorch", _embeddings),
    "pictures": Benchmark("pictures over HTTP and gRPC ÷ diffusers on PyTorch", _pictures),
    "soak": Benchmark(
        "minutes of mixed load on the real service: errors, slowness, growth of memory and files", _soak, rounds=None
    ),
}
"""In the order in which they run."""
