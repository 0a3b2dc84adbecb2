"""Compares embeddings over HTTP and over gRPC with sentence-transformers on PyTorch, in texts/s on the same cores.

The workers take turns with the same texts in each round, so that other work on the machine affects all of them alike. A
load is one request with a number of texts, most of them short. Values are medians over the rounds; ratios are medians
of the rounds' ratios. sentence-transformers runs with all cores, which is its default, and with one core, because its
threads wait for one another on a busy machine. Ratios are to the better of the two.
"""

import argparse
import contextlib
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.deployment import wait_for_models
from benchmarks.models import EMBEDDING_MODEL
from benchmarks.tables import Column, Plot, Table, Value
from tritonic.embedded import EmbeddedTriton
from tritonic.gateway_process import GatewayProcess
from tritonic.ports import free_ports

LOADS = (1, 8, 32, 128)
TEXT = Path(__file__).parent / "data" / "alice.txt"
MAX_DIFFERENCE = 1e-4
"""The most by which a number of an embedding may differ between workers."""

Embed = Callable[[list[str]], Any]


def make_texts(count: int, seed: int) -> list[str]:
    """Return pieces of a book of 3 to 140 words, half of them shorter than 25."""
    rng, words = random.Random(seed), TEXT.read_text(encoding="utf-8").split()
    texts = []
    for _ in range(count):
        length = int(min(140, max(3, rng.lognormvariate(3.2, 0.9))))
        start = rng.randrange(len(words) - length)
        texts.append(" ".join(words[start : start + length]))
    return texts


def sentence_transformers(target: str, threads: int) -> Embed:
    """Embed with sentence-transformers in this process; `target` is a model folder."""
    import torch
    from sentence_transformers import SentenceTransformer

    torch.set_num_threads(threads)
    model = SentenceTransformer(target, device="cpu")
    return lambda texts: model.encode(texts, show_progress_bar=False)


def triton(target: str, threads: int) -> Embed:
    """Embed over gRPC without the gateway; `target` is `host:port/model`."""
    import grpc
    from tritonclient.grpc import service_pb2 as pb
    from tritonclient.grpc import service_pb2_grpc as rpc

    url, model = target.split("/")
    options = [("grpc.max_receive_message_length", -1), ("grpc.enable_http_proxy", 0)]
    stub = rpc.GRPCInferenceServiceStub(grpc.insecure_channel(url, options=options))

    def embed(texts: list[str]) -> Any:
        request = pb.ModelInferRequest(model_name=model)
        request.inputs.add(name="text", datatype="BYTES", shape=[len(texts)])
        encoded = [text.encode() for text in texts]
        request.raw_input_contents.append(b"".join(len(text).to_bytes(4, "little") + text for text in encoded))
        for message in stub.ModelStreamInfer(iter([request])):
            assert not message.error_message, message.error_message
            answer = message.infer_response
            for output, raw in zip(answer.outputs, answer.raw_output_contents, strict=True):
                if output.name == "embedding":
                    return np.frombuffer(raw, np.float32).reshape(output.shape)
        raise AssertionError("no response")

    return embed


def gateway(target: str, threads: int) -> Embed:
    """Embed over HTTP through the gateway, in base64 as OpenAI's client does; `target` is `url model`."""
    import base64

    import httpx

    url, model = target.split(" ")
    http = httpx.Client(timeout=120, trust_env=False)

    def embed(texts: list[str]) -> Any:
        response = http.post(f"{url}/v1/embeddings", json={"model": model, "input": texts, "encoding_format": "base64"})
        assert response.status_code == 200, response.text
        rows = [base64.b64decode(entry["embedding"]) for entry in response.json()["data"]]
        return np.frombuffer(b"".join(rows), np.float32).reshape(len(texts), -1)

    return embed


EMBEDDERS: dict[str, Callable[[str, int], Embed]] = {
    "torch": sentence_transformers,
    "triton": triton,
    "gateway": gateway,
}


class EmbeddingWorker:
    """A handle of a worker process.

    The process reads a JSON line of texts, writes their embeddings to the file `rows`, and prints the seconds it took.
    """

    def __init__(self, kind: str, target: str, threads: int, rows: Path) -> None:
        self._rows = rows
        command = [sys.executable, "-m", "benchmarks.embeddings", "--worker", kind, target, str(threads), str(rows)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def run(self, texts: list[str]) -> tuple[float, Any]:
        """Return the seconds and the embeddings, [texts, dimensions]. Raises `SystemExit` if the worker has died."""
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(json.dumps(texts) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"The worker {self._process.args!r} died.")
        return float(line), np.load(self._rows)

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait(30)


def work(kind: str, target: str, threads: int, rows: Path) -> None:
    """Serve as a worker process until standard input ends."""
    lines = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # output of libraries must not mix with the result lines
    embed = EMBEDDERS[kind](target, threads)
    for line in sys.stdin:
        texts = json.loads(line)
        started = time.perf_counter()
        embeddings = embed(texts)
        seconds = time.perf_counter() - started
        np.save(rows, embeddings)
        print(seconds, file=lines, flush=True)


def measure(workers: dict[str, EmbeddingWorker], rounds: int) -> dict[str, dict[int, list[float]]]:
    """Return the texts/s of each round, by worker and load. A warm-up round comes first and is not returned.

    Raises `AssertionError` if two workers return different embeddings for one text.
    """
    rates: dict[str, dict[int, list[float]]] = {name: {load: [] for load in LOADS} for name in workers}
    for number in range(rounds + 1):
        for load in LOADS:
            texts = make_texts(load, 1000 * number + load)
            # Each round begins with another worker, so that no worker always follows the same one.
            order = list(workers)[number % len(workers) :] + list(workers)[: number % len(workers)]
            embeddings = {}
            for name in order:
                seconds, embeddings[name] = workers[name].run(texts)
                if number:
                    rates[name][load].append(load / seconds)
            reference = embeddings[order[0]]
            for name in order:
                difference = float(np.abs(embeddings[name] - reference).max())
                assert difference < MAX_DIFFERENCE, f"{name} differs from {order[0]} by {difference}"
    return rates


def tables(rates: dict[str, dict[int, list[float]]]) -> list[Table]:
    """Return the table of rates, and the ratios of our rates to those of the better sentence-transformers."""
    peers = [name for name in rates if name.startswith("sentence-transformers")]
    rows: list[tuple[Value, ...]] = [
        (name, load, statistics.median(loads[load])) for name, loads in rates.items() for load in LOADS if loads[load]
    ]
    ratios: list[tuple[Value, ...]] = []
    for name in [name for name in rates if name not in peers]:
        cells = []
        for load in LOADS:
            medians = {peer: statistics.median(rates[peer][load]) for peer in peers}
            peer = max(peers, key=medians.__getitem__)
            pairs = zip(rates[name][load], rates[peer][load], strict=True)
            cells.append(statistics.median(ours / theirs for ours, theirs in pairs))
        ratios.append((name, *cells))
    ratio_columns = tuple(Column(f"{load} texts" if load > 1 else "1 text", digits=2) for load in LOADS)
    return [
        Table(
            "Texts a second, one request at a time",
            (Column("system"), Column("texts in a request"), Column("rate", "texts/s")),
            rows,
            plots=(Plot("texts in a request", ("rate",), by="system", log_x=True),),
            versions={name: version(name) for name in ("sentence-transformers", "torch", "onnxruntime")},
            details={"rounds": rates},
        ),
        Table("Texts/s ÷ those of the better sentence-transformers", (Column("system"), *ratio_columns), ratios),
    ]


def run(repository: Path, rounds: int, *, http: bool = True) -> list[Table]:
    """Start Triton and all workers, measure, and return the tables. Without `http`, the gateway is left out."""
    from builders.progress import NullProgress
    from builders.sources import resolve

    threads = len(os.sched_getaffinity(0))
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        served = folder / "repository"
        served.mkdir()
        # Triton serves this model alone, so that no other model uses the cores.
        (served / EMBEDDING_MODEL).symlink_to((repository / EMBEDDING_MODEL).resolve())
        server = stack.enter_context(EmbeddedTriton(served))
        source = str(resolve(f"packaged:{EMBEDDING_MODEL}").fetch(folder, NullProgress()).folder)
        targets = {"through Triton": ("triton", f"{server.grpc_url}/{EMBEDDING_MODEL}", threads)}
        if http:
            server.share_secret()
            gateway_process = GatewayProcess("127.0.0.1", free_ports(1)[0], server.grpc_url, folder / "gateway.log")
            gateway_process.start()
            stack.callback(gateway_process.stop)
            gateway_process.wait_live()
            wait_for_models(gateway_process)
            targets["through the gateway"] = ("gateway", f"{gateway_process.url} {EMBEDDING_MODEL}", threads)
        targets["sentence-transformers, all cores"] = ("torch", source, threads)
        targets["sentence-transformers, one core"] = ("torch", source, 1)
        workers = {}
        for number, (name, (kind, target, count)) in enumerate(targets.items()):
            workers[name] = EmbeddingWorker(kind, target, count, folder / f"rows-{number}.npy")
            stack.callback(workers[name].close)
        rates = measure(workers, rounds)
    return tables(rates)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--worker", nargs=4, metavar=("KIND", "TARGET", "THREADS", "ROWS"), help=argparse.SUPPRESS)
    parser.add_argument("--repository", type=Path, default=Path("model_repository"))
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--no-http", action="store_true", help="leave the gateway out")
    arguments = parser.parse_args()
    if arguments.worker:
        kind, target, threads, rows = arguments.worker
        work(kind, target, int(threads), Path(rows))
    else:
        results = run(arguments.repository, arguments.rounds, http=not arguments.no_http)
        print("\n\n".join(table.markdown() for table in results))


if __name__ == "__main__":
    main()
