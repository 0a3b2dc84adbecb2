"""The registry of benchmarks: their names on the command line, what each measures, and its function."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.models import CHAT_MODEL
from benchmarks.tables import Table


@dataclass(frozen=True, slots=True)
class RunOptions:
    """The options of one benchmark run, from the command line."""

    repository: Path
    model: str
    """The chat model: its folder in the repository."""
    rounds: int
    """Measured rounds, in which the compared systems take turns. A warm-up round comes before them."""
    quick: bool
    """Fewer loads and shorter windows. The results are not for quoting."""
    gguf: Path | None
    """The model's weights for llama.cpp. None: they are converted from the default model."""
    cache: Path
    """Folder that keeps peers, programs and converted weights between runs."""
    work: Path
    """Folder for logs and temporary files."""
    peers: tuple[str, ...] = ()
    """Servers that already run: `NAME=URL` or `NAME=MODEL@URL`."""


@dataclass(frozen=True, slots=True)
class Benchmark:
    """One benchmark: its description, and its function, which imports its modules when it is called."""

    description: str
    run: Callable[[RunOptions], list[Table]]
    needs_models: bool = True
    """True if it needs the default models."""
    default_rounds: int | None = 3
    """Rounds without `--rounds`; the defaults keep all benchmarks within an hour. None: it has no rounds."""


def _direct(options: RunOptions) -> list[Table]:
    from benchmarks import triton_direct

    return triton_direct.run(options.repository, options.model, options.cache, quick=options.quick)


def _gateway(options: RunOptions) -> list[Table]:
    from benchmarks import gateway_vs_direct

    return gateway_vs_direct.run(options.repository, options.model, options.rounds, options.cache, quick=options.quick)


def _alone(options: RunOptions) -> list[Table]:
    from benchmarks import gateway_overhead

    return gateway_overhead.run((1, 64) if options.quick else gateway_overhead.STREAMS, options.rounds)


def _proxies(options: RunOptions) -> list[Table]:
    from benchmarks import gateway_vs_litellm

    return gateway_vs_litellm.run(options.cache, options.work, options.rounds)


def _peers(options: RunOptions) -> list[Table]:
    from benchmarks import peers
    from benchmarks.gguf_q8_0 import default_gguf
    from benchmarks.peer_servers import PeerOptions

    gguf = options.gguf or (default_gguf(options.cache) if options.model == CHAT_MODEL else None)
    peer_options = PeerOptions(options.repository, options.model, gguf, options.cache, options.work, max(peers.STREAMS))
    return peers.run(peer_options, options.rounds, [peers.parse_peer(text) for text in options.peers])


def _vllm(options: RunOptions) -> list[Table]:
    from benchmarks import vllm_engine
    from benchmarks.peer_servers import PeerOptions

    peer_options = PeerOptions(
        options.repository, options.model, None, options.cache, options.work, vllm_engine.STREAMS
    )
    return vllm_engine.run(peer_options, options.rounds)


def _throughput(options: RunOptions) -> list[Table]:
    from benchmarks import throughput
    from benchmarks.generation_workers import LOADS
    from benchmarks.gguf_q8_0 import default_gguf

    gguf = options.gguf or (default_gguf(options.cache) if options.model == CHAT_MODEL else None)
    return throughput.run(options.repository, options.model, gguf, options.rounds, (1, 8) if options.quick else LOADS)


def _prefix(options: RunOptions) -> list[Table]:
    from benchmarks import llm_features

    return llm_features.prefix_cache(options.repository, options.model, options.rounds)


def _structures(options: RunOptions) -> list[Table]:
    from benchmarks import llm_features

    return llm_features.structured_outputs(options.repository, options.model, options.rounds)


def _embeddings(options: RunOptions) -> list[Table]:
    from benchmarks import embeddings

    return embeddings.run(options.repository, options.rounds)


def _images(options: RunOptions) -> list[Table]:
    from benchmarks import images

    return images.run(options.repository, options.rounds)


def _videos(options: RunOptions) -> list[Table]:
    from benchmarks import videos

    return videos.run(options.repository, options.rounds)


def _transcription(options: RunOptions) -> list[Table]:
    from benchmarks import transcription

    return transcription.run(options.repository, options.rounds, options.cache, options.work, quick=options.quick)


def _speech(options: RunOptions) -> list[Table]:
    from benchmarks import speech

    return speech.run(options.repository, options.rounds, quick=options.quick)


def _soak(options: RunOptions) -> list[Table]:
    from benchmarks import soak

    return soak.run(options.repository, options.model, minutes=1.0 if options.quick else 2.0)


BENCHMARKS = {
    "direct": Benchmark(
        "perf_analyzer over gRPC against the chat, embedding and image models, 1 to 64 in flight",
        _direct,
        default_rounds=None,
    ),
    "gateway": Benchmark("chats, embeddings and images through the gateway ÷ perf_analyzer over gRPC", _gateway),
    "alone": Benchmark(
        "CPU time, latency and memory of the gateway in front of a scripted Triton, 1 to 1,024 streams",
        _alone,
        needs_models=False,
        default_rounds=4,
    ),
    "proxies": Benchmark(
        "the gateway and LiteLLM's proxy on the same work, one core each", _proxies, needs_models=False
    ),
    "peers": Benchmark("Tritonic, llama.cpp's server, vLLM and any --peer with the same model, over HTTP", _peers),
    "vllm": Benchmark("vLLM behind Triton and the gateway ÷ vLLM's own server, 8 streams", _vllm),
    "throughput": Benchmark(
        "the engine alone, Triton, the gateway and llama.cpp with the same weights", _throughput, default_rounds=2
    ),
    "prefix": Benchmark("prefix cache: the time to first token of a long prompt that is sent twice", _prefix),
    "structures": Benchmark("structured outputs: tokens/s with a JSON schema ÷ without", _structures, default_rounds=2),
    "embeddings": Benchmark("embeddings over HTTP and gRPC ÷ sentence-transformers on PyTorch", _embeddings),
    "pictures": Benchmark("images over HTTP and gRPC ÷ diffusers on PyTorch", _images),
    "videos": Benchmark("videos over HTTP and gRPC ÷ diffusers on PyTorch, and ÷ a bare loop of onnxruntime", _videos),
    "transcription": Benchmark(
        "transcription through the gateway ÷ faster-whisper; word errors and times beside transformers'", _transcription
    ),
    "speech": Benchmark(
        "speech through the gateway: first byte, speed ÷ a bare loop, words that are understood", _speech
    ),
    "soak": Benchmark(
        "minutes of mixed load on the whole service: errors, latency, growth of memory and open files",
        _soak,
        default_rounds=None,
    ),
}
"""All benchmarks in the order in which they run. The names are command-line arguments and names of result files."""
