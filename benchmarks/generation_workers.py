"""Worker processes that generate text with one engine or server.

A worker reads one JSON line of prompts for each load from standard input, runs all prompts at once, and prints a JSON
line of statistics. Only one worker runs at a time, so that each has all cores.
"""

import argparse
import asyncio
import contextlib
import json
import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Coroutine
from functools import partial
from pathlib import Path
from typing import Any

NEW_TOKENS = 64
LOADS = (1, 4, 8, 16)

Prompt = dict[str, Any]
"""`ids`, the token ids, and `text`, which the tokenizer encodes to these ids."""
StartStream = Callable[[Prompt, Callable[[int], None], Callable[[], None]], None]
"""Starts one stream. The first callback gets the number of tokens of each message, the second is called at the end."""


def engine_only(target: str, threads: int) -> StartStream:
    """Run the engine of `backends/llm` in this process; `target` is the version folder of a model."""
    import numpy as np

    from backends.llm.engine import Delta, Event, Generation
    from backends.llm.model_loader import load_model
    from backends.llm.ort.options import OnnxRuntimeOptions
    from backends.llm.sampling_params import SamplingParams
    from backends.serving.tokenizer import load_tokenizer

    folder = Path(target)
    engine = load_model(folder, load_tokenizer(folder), OnnxRuntimeOptions(max_rows=max(LOADS), threads=threads)).engine

    def begin(prompt: Prompt, tokens: Callable[[int], None], end: Callable[[], None]) -> None:
        def sink(event: Event) -> None:
            assert isinstance(event, Delta), event
            tokens(event.num_tokens)
            if event.finish_reason:
                end()

        sampling = SamplingParams(temperature=0, max_tokens=NEW_TOKENS, ignore_eos=True)
        engine.submit(Generation(np.array(prompt["ids"], np.int64), sampling, sink))

    return begin


def llama(target: str, threads: int) -> StartStream:
    """Run llama.cpp's server in this process; `target` is a GGUF file."""
    import xllamacpp

    parameters = xllamacpp.CommonParams()
    parameters.model.path = target
    parameters.n_parallel = max(LOADS)
    parameters.n_ctx = max(LOADS) * 512
    parameters.cache_ram_mib = 0
    parameters.cpuparams.n_threads = parameters.cpuparams_batch.n_threads = threads
    server = xllamacpp.Server(parameters)
    options = {"max_tokens": NEW_TOKENS, "temperature": 0, "stream": True, "ignore_eos": True, "cache_prompt": False}

    def begin(prompt: Prompt, tokens: Callable[[int], None], end: Callable[[], None]) -> None:
        def chunk(value: Any) -> bool:
            part = json.loads(value) if isinstance(value, str | bytes) else value
            if part["choices"][0]["finish_reason"]:
                assert part["usage"]["completion_tokens"] == NEW_TOKENS, part
            else:
                tokens(1)
            return False

        def run() -> None:
            server.handle_completions({"prompt": prompt["ids"], **options}, chunk)
            end()

        threading.Thread(target=run).start()

    return begin


def triton(target: str, threads: int) -> StartStream:
    """Call Triton over gRPC, with one call for each request as the gateway does; `target` is `host:port/model`."""
    import grpc
    from tritonclient.grpc import service_pb2 as pb
    from tritonclient.grpc import service_pb2_grpc as rpc

    url, model = target.split("/")
    sampling = json.dumps({"max_tokens": NEW_TOKENS, "temperature": 0, "ignore_eos": True}).encode()

    def request(text: str) -> Any:
        message = pb.ModelInferRequest(model_name=model)
        for name, datatype, raw in (
            ("text_input", "BYTES", text.encode()),
            ("sampling_parameters", "BYTES", sampling),
            ("stream", "BOOL", b"\1"),
            ("return_num_output_tokens", "BOOL", b"\1"),
        ):
            message.inputs.add(name=name, datatype=datatype, shape=[1])
            prefix = len(raw).to_bytes(4, "little") if datatype == "BYTES" else b""
            message.raw_input_contents.append(prefix + raw)
        return message

    stub: list[Any] = []

    async def stream(prompt: Prompt, tokens: Callable[[int], None]) -> None:
        if not stub:
            stub.append(rpc.GRPCInferenceServiceStub(grpc.aio.insecure_channel(url)))
        call = stub[0].ModelStreamInfer()
        await call.write(request(prompt["text"]))
        await call.done_writing()
        async for message in call:
            assert not message.error_message, message.error_message
            answer = message.infer_response
            for output, raw in zip(answer.outputs, answer.raw_output_contents, strict=True):
                if output.name == "num_output_tokens":
                    tokens(int.from_bytes(raw, "little"))

    return _asynchronous(stream)


def gateway(target: str, threads: int) -> StartStream:
    """Stream from the gateway over HTTP as server-sent events; `target` is `url model`."""
    import aiohttp

    url, model = target.split(" ")
    session: list[aiohttp.ClientSession] = []

    async def stream(prompt: Prompt, tokens: Callable[[int], None]) -> None:
        if not session:
            session.append(aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)))
        body = {"model": model, "prompt": prompt["text"], "max_tokens": NEW_TOKENS, "temperature": 0}
        body |= {"stream": True, "ignore_eos": True, "stream_options": {"include_usage": True}}
        counted = total = 0
        async with session[0].post(f"{url}/v1/completions", json=body) as response:
            assert response.status == 200, await response.text()
            async for line in response.content:
                if line.startswith(b"data: {") and b'"choices":[]' in line:
                    total = json.loads(line[6:])["usage"]["completion_tokens"]
                elif line.startswith(b"data: {") and b'"finish_reason":null' in line:
                    counted += 1
                    tokens(1)
        # A chunk can hold several tokens, or tokens without text. The usage has the true number.
        tokens(total - counted)

    return _asynchronous(stream)


def _asynchronous(stream: Callable[[Prompt, Callable[[int], None]], Coroutine[Any, Any, None]]) -> StartStream:
    """Run coroutines in an event loop in a thread of its own."""
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, daemon=True).start()

    def begin(prompt: Prompt, tokens: Callable[[int], None], end: Callable[[], None]) -> None:
        future = asyncio.run_coroutine_threadsafe(stream(prompt, tokens), loop)

        def on_done(done: Any) -> None:
            if done.exception():
                print(repr(done.exception()), file=sys.stderr)
                os._exit(1)
            end()

        future.add_done_callback(on_done)

    return begin


ENGINES: dict[str, Callable[[str, int], StartStream]] = {
    "engine": engine_only,
    "llama": llama,
    "triton": triton,
    "gateway": gateway,
}


def run_load(begin: StartStream, prompts: list[Prompt]) -> dict[str, float]:
    """Run all prompts at once, and return the statistics.

    `tokens_per_second` is over all streams. `first_token_seconds` and `token_milliseconds` are medians over streams.
    """
    import psutil

    arrivals: list[list[tuple[float, int]]] = [[] for _ in prompts]

    def record(stream: list[tuple[float, int]], count: int) -> None:
        stream.append((time.perf_counter(), count))

    ended = threading.Semaphore(0)
    start = time.perf_counter()
    for prompt, stream in zip(prompts, arrivals, strict=True):
        begin(prompt, partial(record, stream), ended.release)
    for _ in prompts:
        ended.acquire()
    seconds = time.perf_counter() - start
    generated = sum(count for stream in arrivals for _, count in stream)
    return {
        "tokens_per_second": generated / seconds,
        "first_token_seconds": statistics.median(stream[0][0] - start for stream in arrivals),
        "token_milliseconds": statistics.median(
            1000 * (stream[-1][0] - stream[0][0]) / max(1, sum(count for _, count in stream) - 1) for stream in arrivals
        ),
        "rss_megabytes": psutil.Process().memory_info().rss / 2**20,
    }


class GenerationWorker:
    """A handle of a worker process."""

    def __init__(self, kind: str, target: str, threads: int) -> None:
        command = [sys.executable, "-m", "benchmarks.generation_workers", kind, target, "--threads", str(threads)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def run(self, prompts: list[Prompt]) -> dict[str, float]:
        """Run all prompts at once, and return the statistics. Raises `SystemExit` if the worker has died."""
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(json.dumps(prompts) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"The worker {self._process.args!r} died.")
        stats: dict[str, float] = json.loads(line)
        return stats

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin
        self._process.stdin.close()
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:  # it is still in a load, whose result is not needed
            self._process.kill()
            self._process.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=ENGINES)
    parser.add_argument("target")
    parser.add_argument("--threads", type=int, default=0)
    arguments = parser.parse_args()
    lines = os.fdopen(os.dup(1), "w")
    quiet = os.open(os.devnull, os.O_WRONLY)
    with contextlib.redirect_stdout(sys.stderr):
        os.dup2(quiet, 1)  # output of native code must not mix with the result lines
        if arguments.kind == "llama":
            os.dup2(quiet, 2)
        begin = ENGINES[arguments.kind](arguments.target, arguments.threads)
        for line in sys.stdin:
            print(json.dumps(run_load(begin, json.loads(line))), file=lines, flush=True)
    os._exit(0)  # llama.cpp's server would wait for its own threads


if __name__ == "__main__":
    main()
