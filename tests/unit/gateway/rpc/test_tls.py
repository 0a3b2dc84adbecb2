"""TLS to a Triton: certificates that are trusted, asked for, wrong, and settings that cannot be used."""

import os
import socket
import sys
from pathlib import Path
from typing import Any

import grpc
import pytest
import trustme
from pydantic import ValidationError

from gateway.settings import Settings
from gateway.triton.grpc_transport import GrpcTransport
from gateway.triton.rpc.channel import Channel
from gateway.triton.rpc.status import RpcError, Status
from gateway.triton.transport import connector
from tests.unit.gateway.rpc.grpc_peer import GrpcServer, TestService, count_echoes


class Certificates:
    """Files of a certificate authority, and of a client's certificate that it signed."""

    def __init__(self, folder: Path) -> None:
        self.authority = trustme.CA(key_type=trustme.KeyType.ECDSA)
        client = self.authority.issue_cert("gateway@example.org", key_type=trustme.KeyType.ECDSA)
        self.ca, self.cert, self.key = folder / "ca.pem", folder / "client.pem", folder / "client.key"
        self.authority.cert_pem.write_to_path(self.ca)
        client.cert_chain_pems[0].write_to_path(self.cert)
        client.private_key_pem.write_to_path(self.key)

    def server(self, *names: str, ask_client: bool = False) -> grpc.ServerCredentials:
        certificate = self.authority.issue_cert(*names, key_type=trustme.KeyType.ECDSA)
        pair = certificate.private_key_pem.bytes(), certificate.cert_chain_pems[0].bytes()
        return grpc.ssl_server_credentials([pair], self.authority.cert_pem.bytes() if ask_client else None, ask_client)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def other_certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("other"))


async def test_a_server_with_a_certificate(certificates: Certificates) -> None:
    connect = connector(Settings(triton_tls_ca=certificates.ca))
    async with GrpcServer(TestService(), connect, certificates.server("127.0.0.1")) as served:
        assert await count_echoes(served.transport, b"\5x") == 5
        assert b"sesame" in await served.transport.unary("/a.B/Headers", b"", timeout=60)


async def test_a_server_that_requires_a_client_certificate(
    certificates: Certificates, other_certificates: Certificates
) -> None:
    credentials = certificates.server("127.0.0.1", ask_client=True)
    pairs = ((certificates, True), (other_certificates, False), (None, False))
    for client, trusted in pairs:
        pair: dict[str, Any] = {"triton_tls_cert": client.cert, "triton_tls_key": client.key} if client else {}
        connect = connector(Settings(triton_tls_ca=certificates.ca, **pair))
        async with GrpcServer(TestService(), connect, credentials) as served:
            if trusted:
                assert await count_echoes(served.transport, b"\5x") == 5
            else:
                await is_unavailable(served)


async def is_unavailable(served: GrpcServer) -> None:
    with pytest.raises(RpcError) as failure:
        await count_echoes(served.transport, b"\5x")
    assert failure.value.status is Status.UNAVAILABLE


@pytest.mark.parametrize("case", ["another authority", "another name", "no TLS here", "no TLS there"])
async def test_untrusted_servers_are_unavailable(
    certificates: Certificates, other_certificates: Certificates, case: str
) -> None:
    settings: dict[str, Any] = {} if case == "no TLS here" else {"triton_tls_ca": certificates.ca}
    issuer = other_certificates if case == "another authority" else certificates
    name = "triton.example.org" if case == "another name" else "127.0.0.1"
    credentials = None if case == "no TLS there" else issuer.server(name)
    async with GrpcServer(TestService(), connector(Settings(**settings)), credentials) as served:
        await is_unavailable(served)


async def test_the_settings_choose_the_transport(certificates: Certificates) -> None:
    assert connector(Settings()) is Channel
    assert connector(Settings(triton_transport="grpcio")) is GrpcTransport
    transport = connector(Settings(triton_transport="http2", triton_tls_ca=certificates.ca))("127.0.0.1:1", ())
    assert isinstance(transport, GrpcTransport)
    await transport.close()


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ({"ca": "missing"}, "does not point to a file"),
        ({"ca": "key"}, "no certificates"),
        ({"cert": "cert"}, "set both"),
        ({"key": "key"}, "set both"),
        ({"cert": "ca", "key": "key"}, "not the key"),
        ({"cert": "key", "key": "cert"}, "not the key"),
    ],
)
def test_invalid_tls_files_are_refused(certificates: Certificates, files: dict[str, str], reason: str) -> None:
    settings: dict[str, Any] = {
        f"triton_tls_{name}": getattr(certificates, file, Path("/missing.pem")) for name, file in files.items()
    }
    with pytest.raises(ValidationError, match=reason):
        Settings(**settings)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("connect", [Channel, GrpcTransport])
async def test_a_vanished_host_is_noticed(connect) -> None:
    """The system ends a connection on which nothing was acknowledged for 20 seconds."""
    async with GrpcServer(TestService(), connect) as served:
        assert await count_echoes(served.transport, b"\1") == 1
        timeouts = []
        for descriptor in [*Path("/proc/self/fd").iterdir()]:
            try:
                connection = socket.socket(fileno=os.dup(int(descriptor.name)))
            except OSError:  # no socket
                continue
            with connection:
                try:
                    is_client = connection.getpeername()[1:2] == (served.port,)
                except (OSError, TypeError):
                    continue
                if is_client:
                    timeouts.append(connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT))
        assert timeouts == [20_000]
