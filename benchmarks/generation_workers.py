"""Streams of text generation against one engine or server, in a process of its own.

A worker is told prompts on standard input, one JSON line a load, runs all of them at once, and answers with a line of
figures. Only one worker works at a time, so each has the machine to itself.
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
from pathlib import Path
from typing import Any

NEW_TOKENS = 64
LOADS = (1, 4, 8, 16)

Prompt = dict[str, Any]
"""`ids`, the tokens, and `text`, which the tokenizer turns into the same tokens."""
StartStream = Callable[[Prompt, Callable[[int], None], Callable[[], None]], None]
"""Begin one stream: call the first function with each number of tokens that arrive, the second at the end."""


def engine_only(target: str, threads: int) -> StartStream:
    """The engine of `backends/llm` in this process; `target` is a model's version folder."""
    import numpy as np

    from backends.llm.engine import Delta, Event, Generation
    from backends.llm.model_loader import load_model
    from backends.llm.options import Options
    from backends.llm.sampling_params import SamplingParams
    from backends.serving.tokenizer import load_tokenizer

    folder = Path(target)
    engine = load_model(folder, load_tokenizer(folder), Options(max_rows=max(LOADS), threads=threads)).engine

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
    """llama.cpp's server in this process; `target` is a GGUF."""
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
    """gRPC straight to Triton, one stream a request, as the gateway does it; `target` is `host:port/model`."""
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
    """HTTP to the gateway, server-sent events; `target` is `url model`."""
    import aiohttp

    url, model = target.split(" ")
    session: list[aiohttp.ClientSession] = []

    async def stream(prompt: Prompt, tokens: Callable[[int], None]) -> None:
        if not session:
            session.append(aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)))
        body = {"model": model, "prompt": prompt["text"], "max_tokens": NEW_TOKENS, "temperature": 0}
        body |= {"stream": True, "ignore_eos": True, "stream_options": {"include_usage": True}}
        seen = total = 0
        async with session[0].post(f"{url}/v1/completions", json=body) as response:
            assert response.status == 200, await response.text()
            async for line in response.content:
                if line.startswith(b"data: {") and b'"choices":[]' in line:
                    total = json.loads(line[6:])["usage"]["completion_tokens"]
                elif line.startswith(b"data: {") and b'"finish_reason":null' in line:
                    seen += 1
                    tokens(1)
        # A chunk can carry several tokens, or none that shows: the usage has the true number.
        tokens(total - seen)

    return _asynchronous(stream)


def _asynchronous(stream: Callable[[Prompt, Callable[[int], None]], Coroutine[Any, Any, None]]) -> StartStream:
    """Run coroutines on a loop in a thread of its own."""
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, daemon=True).start()

    def begin(prompt: Prompt, tokens: Callable[[int], None], end: Callable[[], None]) -> None:
        future = asyncio.run_coroutine_threadsafe(stream(prompt, tokens), loop)

        def ended(done: Any) -> None:
            if done.exception():
                print(repr(done.exception()), file=sys.stderr)
                os._exit(1)
            end()

        future.add_done_callback(ended)

    return begin


ENGINES: dict[str, Callable[[str, int], StartStream]] = {
    "bare": engine_only,
    "llama": llama,
    "triton": triton,
    "gateway": gateway,
}


def run_load(begin: StartStream, prompts: list[Prompt]) -> dict[str, float]:
    """Run all prompts at once: tokens/s over all, median seconds to the first token, milliseconds a token."""
    import psutil

    arrivals: list[list[tuple[float, int]]] = [[] for _ in prompts]
    ended = threading.Semaphore(0)
    start = time.perf_counter()
    for prompt, own in zip(prompts, arrivals, strict=True):
        begin(prompt, lambda count, own=own: own.append((time.perf_counter(), count)), ended.release)
    for _ in prompts:
        ended.acquire()
    seconds = time.perf_counter() - start
    generated = sum(count for own in arrivals for _, count in own)
    return {
        "tokens_per_second": generated / seconds,
        "first_token_seconds": statistics.median(own[0][0] - start for own in arrivals),
        "token_milliseconds": statistics.median(
            1000 * (own[-1][0] - own[0][0]) / max(1, sum(count for _, count in own) - 1) for own in arrivals
        ),
        "rss_megabytes": psutil.Process().memory_info().rss / 2**20,
    }


class GenerationWorker:
    """A worker's process."""

    def __init__(self, kind: str, target: str, threads: int) -> None:
        command = [sys.executable, "-m", "benchmarks.generation_workers", kind, target, "--threads", str(threads)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def run(self, prompts: list[Prompt]) -> dict[str, float]:
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(json.dumps(prompts) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"The worker {self._process.args} died.")
        figures: dict[str, float] = json.loads(line)
        return figures

    def close(self) -> None:
        assert self._process.stdin
        self._process.stdin.close()
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:  # in the middle of a load, which nobody waits for any more
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
        os.dup2(quiet, 1)  # what native code prints must not get between the lines
        if arguments.kind == "llama":
            os.dup2(quiet, 2)
        begin = ENGINES[arguments.kind](arguments.target, arguments.threads)
        for line in sys.stdin:
            print(json.dumps(run_load(begin, json.loads(line))), file=lines, flush=True)
    os._exit(0)  # llama.cpp's server would wait for its own threads


if __name__ == "__main__":
    main()
