"""Restrictions of Triton's own ports."""

import shutil
import socket
import subprocess
from pathlib import Path

import grpc
import httpx
import psutil
import pytest
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc as rpc

from tests.triton.text_client import NAME
from tritonic.embedded import EmbeddedTriton

pytestmark = pytest.mark.triton

ROOT = Path(__file__).parents[2]
HEALTH = ROOT / "docker" / "triton-health"
LOAD = pb.RepositoryModelLoadRequest(model_name="evil")
LOAD.parameters["config"].string_param = '{"backend": "python", "max_batch_size": 0}'
LOAD.parameters["file:1/model.py"].bytes_param = b"import os; os.abort()"
RESTRICTED = {
    "RepositoryIndex": pb.RepositoryIndexRequest(),
    "RepositoryModelLoad": LOAD,
    "RepositoryModelUnload": pb.RepositoryModelUnloadRequest(model_name=NAME),
    "SystemSharedMemoryRegister": pb.SystemSharedMemoryRegisterRequest(name="a", key="/b", byte_size=8),
    "SystemSharedMemoryUnregister": pb.SystemSharedMemoryUnregisterRequest(),
    "SystemSharedMemoryStatus": pb.SystemSharedMemoryStatusRequest(),
    "CudaSharedMemoryRegister": pb.CudaSharedMemoryRegisterRequest(name="a", byte_size=8),
    "TraceSetting": pb.TraceSettingRequest(),
    "LogSettings": pb.LogSettingsRequest(),
}


@pytest.mark.parametrize("method", RESTRICTED)
@pytest.mark.parametrize("secret", [None, "", "wrong"])
def test_restricted_calls_need_the_secret(triton: EmbeddedTriton, method: str, secret: str | None) -> None:
    metadata = None if secret is None else [("triton-grpc-protocol-tritonic", secret)]
    with grpc.insecure_channel(triton.grpc_url, options=[("grpc.enable_http_proxy", 0)]) as channel:
        call = getattr(rpc.GRPCInferenceServiceStub(channel), method)
        with pytest.raises(grpc.RpcError) as refused:
            call(RESTRICTED[method], metadata=metadata, timeout=10)
    assert refused.value.code() == grpc.StatusCode.UNAVAILABLE
    assert "This protocol is restricted" in refused.value.details()
    assert [model.state for model in triton.models() if model.name == NAME] == ["READY"]


def test_there_is_no_grpc_reflection(triton: EmbeddedTriton) -> None:
    """There is no gRPC reflection."""
    with grpc.insecure_channel(triton.grpc_url, options=[("grpc.enable_http_proxy", 0)]) as channel:
        for version in ("v1", "v1alpha"):
            call = channel.stream_stream(f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo")
            with pytest.raises(grpc.RpcError) as refused:
                next(call(iter([b"\x3a\x00"]), timeout=10))
            assert refused.value.code() == grpc.StatusCode.UNIMPLEMENTED


def test_only_grpc_and_metrics_listen(triton: EmbeddedTriton) -> None:
    with pytest.raises(RuntimeError, match="HTTP endpoint is closed"):
        triton.http_url  # noqa: B018
    listening = psutil.Process(triton.pid).net_connections("tcp")
    found = {
        (each.laddr.ip.removeprefix("::ffff:"), each.laddr.port)
        for each in listening
        if each.status == psutil.CONN_LISTEN
    }
    assert found == {("127.0.0.1", triton.grpc_port), ("127.0.0.1", triton.metrics_port)}
    for method in ("POST", "PUT", "DELETE"):
        assert httpx.request(method, triton.metrics_url, trust_env=False).status_code in (400, 404, 405)


@pytest.mark.parametrize("kind", ["simple", "upgrade", "in the body"])
def test_http_requests_to_the_grpc_port_load_nothing(triton: EmbeddedTriton, kind: str) -> None:
    """The server notices that it is not HTTP/2 and closes the connection; nothing is loaded."""
    frames = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0"
    head = b"POST /inference.GRPCInferenceService/RepositoryModelLoad HTTP/1.1\r\nHost: 127.0.0.1\r\n"
    sent = {
        "simple": head + b"Content-Type: text/plain\r\nContent-Length: 2\r\n\r\n{}",
        "upgrade": head + b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n\r\n",
        "in the body": head + b"Content-Length: %d\r\n\r\n" % len(frames) + frames,
    }[kind]
    with socket.create_connection((triton.host, triton.grpc_port), timeout=10) as connection:
        connection.sendall(sent)
        received = bytearray()
        try:
            while more := connection.recv(4096):
                received += more
        except ConnectionResetError:
            pass
    assert not received.startswith(b"HTTP/1")
    assert triton.poll() is None and triton.is_ready()


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_the_health_check_of_the_container(triton: EmbeddedTriton) -> None:
    assert subprocess.run([HEALTH, triton.grpc_url], capture_output=True).returncode == 0
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        assert subprocess.run([HEALTH, address], capture_output=True).returncode != 0
    assert subprocess.run([HEALTH, address], capture_output=True).returncode != 0
