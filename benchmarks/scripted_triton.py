"""A scripted Triton that costs almost no CPU: `python -m benchmarks.scripted_triton` serves one model, `scripted`.

The model answers a request with `max_tokens` tokens, one message each, the first at once and the others `--every`
seconds apart. Each token is a space and its send time, in nanoseconds of the system's monotonic clock, so that a client
on the same machine can compute its delay. Messages are encoded once and then changed in place, so that this program
takes little CPU time from the measurement.
"""

import argparse
import asyncio
import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import grpc
import uvloop
from tritonclient.grpc import model_config_pb2 as config_pb
from tritonclient.grpc import service_pb2 as pb

MODEL = "scripted"
_STAMP = 19
"""Digits of a time stamp in nanoseconds: enough for 317 years of uptime."""
_SERVICE = "inference.GRPCInferenceService"
_STRING, _BOOL = config_pb.TYPE_STRING, config_pb.TYPE_BOOL
_INPUTS = (
    ("text_input", _STRING),
    ("token_ids", config_pb.TYPE_INT32),
    ("stream", _BOOL),
    ("sampling_parameters", _STRING),
    ("exclude_input_in_output", _BOOL),
    ("return_finish_reason", _BOOL),
    ("return_num_input_tokens", _BOOL),
    ("return_num_output_tokens", _BOOL),
)
_OUTPUTS = (
    ("text_output", _STRING),
    ("finish_reason", _STRING),
    ("num_input_tokens", config_pb.TYPE_UINT32),
    ("num_output_tokens", config_pb.TYPE_UINT32),
)


def config() -> config_pb.ModelConfig:
    """Return the model configuration that a builder would write."""
    result = config_pb.ModelConfig(name=MODEL, backend="llm")
    result.model_transaction_policy.decoupled = True
    for name, kind in _INPUTS:
        result.input.add(name=name, data_type=kind, dims=[1], optional=True)
    for name, kind in _OUTPUTS:
        result.output.add(name=name, data_type=kind, dims=[1])
    parameters = {
        "signature": "vllm",
        "operations": '["chat", "complete"]',
        "context_length": "100000",
        "chat_template": "{% for m in messages %}{{ m.content }}{% endfor %}",
    }
    for key, value in parameters.items():
        result.parameters[key].string_value = value
    return result


def _text(value: bytes) -> bytes:
    return len(value).to_bytes(4, "little") + value


def message(request: str, tokens: int, *, final: bool) -> bytearray:
    """Return one encoded response with `tokens` tokens, whose time stamps are zeros."""
    response = pb.ModelInferResponse(model_name=MODEL, model_version="1", id=request)
    response.parameters["triton_final_response"].bool_param = final
    for name, kind, raw in (
        ("text_output", "BYTES", _text(b"".join(b" " + b"0" * _STAMP for _ in range(tokens)))),
        ("finish_reason", "BYTES", _text(b"length" if final else b"None")),
        ("num_input_tokens", "UINT32", (7).to_bytes(4, "little")),
        ("num_output_tokens", "UINT32", tokens.to_bytes(4, "little")),
    ):
        response.outputs.add(name=name, datatype=kind, shape=[1])
        response.raw_output_contents.append(raw)
    return bytearray(pb.ModelStreamInferResponse(infer_response=response).SerializeToString())


class ScriptedTriton:
    """The gRPC service. It sends a token every `every` seconds, and `together` tokens in one message."""

    def __init__(self, every: float, together: int) -> None:
        self._interval = every
        self._tokens_per_message = together

    def handlers(self) -> Any:
        """Return the handlers for a grpcio server."""
        answers = {
            "ServerLive": pb.ServerLiveResponse(live=True),
            "ServerReady": pb.ServerReadyResponse(ready=True),
            "ServerMetadata": pb.ServerMetadataResponse(name="triton", version="2.51.0"),
            "ModelReady": pb.ModelReadyResponse(ready=True),
            "RepositoryIndex": pb.RepositoryIndexResponse(
                models=[pb.RepositoryIndexResponse.ModelIndex(name=MODEL, version="1", state="READY")]
            ),
            "ModelConfig": pb.ModelConfigResponse(config=config()),
        }

        def constant_handler(answer: bytes) -> Any:
            async def respond(request: bytes, context: Any) -> bytes:
                return answer

            return grpc.unary_unary_rpc_method_handler(respond)

        methods = {name: constant_handler(answer.SerializeToString()) for name, answer in answers.items()}
        methods["ModelStreamInfer"] = grpc.stream_stream_rpc_method_handler(self._infer)
        return grpc.method_handlers_generic_handler(_SERVICE, methods)

    async def _infer(self, requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        async for raw in requests:
            request = pb.ModelInferRequest.FromString(raw)
            names = [tensor.name for tensor in request.inputs]
            inputs = dict(zip(names, request.raw_input_contents, strict=True))
            max_tokens = int(json.loads(inputs["sampling_parameters"][4:]).get("max_tokens", 16))
            encoded = message(request.id, self._tokens_per_message, final=False)
            offset = encoded.index(b"0" * _STAMP)
            left = max_tokens
            while left > 0:
                # The first token is sent alone, without waiting for others.
                tokens = min(left, self._tokens_per_message) if left < max_tokens else 1
                left -= tokens
                if tokens != self._tokens_per_message or not left:
                    encoded = message(request.id, tokens, final=not left)
                    offset = encoded.index(b"0" * _STAMP)
                stamp = b"%019d" % time.monotonic_ns()
                for number in range(tokens):
                    start = offset + number * (_STAMP + 1)
                    encoded[start : start + _STAMP] = stamp
                yield bytes(encoded)
                if left and tokens != self._tokens_per_message:
                    encoded = message(request.id, self._tokens_per_message, final=False)
                    offset = encoded.index(b"0" * _STAMP)
                if left and self._interval:
                    await asyncio.sleep(self._interval * self._tokens_per_message)


async def serve(every: float, together: int) -> None:
    """Serve until the process is killed. Print the port as the first line."""
    server = grpc.aio.server(options=[("grpc.max_concurrent_streams", 100_000)])
    server.add_generic_rpc_handlers((ScriptedTriton(every, together).handlers(),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(port, flush=True)
    await server.wait_for_termination()


@contextlib.contextmanager
def run_scripted_triton(every: float = 0.0, together: int = 1, cores: set[int] | None = None) -> Iterator[str]:
    """Run the scripted Triton in a process of its own, on `cores`. Yield its `host:port`."""
    command = [sys.executable, "-m", "benchmarks.scripted_triton", "--every", str(every), "--together", str(together)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        if cores:
            os.sched_setaffinity(process.pid, cores)
        assert process.stdout
        yield f"127.0.0.1:{int(process.stdout.readline())}"
    finally:
        process.kill()
        process.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--every", type=float, default=0.0, help="seconds between two tokens")
    parser.add_argument("--together", type=int, default=1, help="tokens of a message")
    arguments = parser.parse_args()
    uvloop.run(serve(arguments.every, arguments.together))


if __name__ == "__main__":
    main()
