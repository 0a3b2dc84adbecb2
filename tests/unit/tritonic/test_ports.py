import os
import re
import socket

import psutil
import pytest

from tritonic import ports


@pytest.fixture
def taken():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen()
        yield sock.getsockname()[1]


def test_the_error_names_port_program_and_remedy(taken):
    with pytest.raises(ports.PortError) as failure:
        ports.check_free("127.0.0.1", taken, "the gateway", "--port")
    name = psutil.Process(os.getpid()).name()
    assert str(failure.value) == (
        f"Port {taken}, which the gateway needs, is in use by process {os.getpid()} ({name}). "
        "End it, or choose another port with --port."
    )


def test_the_error_without_a_known_program(taken, monkeypatch):
    def refuse(**_):
        raise psutil.AccessDenied

    monkeypatch.setattr(psutil, "net_connections", refuse)
    with pytest.raises(ports.PortError, match=re.escape("in use by another program (run as root to see which)")):
        ports.check_free("127.0.0.1", taken, "the gateway", "--port")


def test_an_address_of_another_machine():
    with pytest.raises(ports.PortError, match=r"^The gateway cannot listen on 192\.0\.2\.1:0: Cannot assign"):
        ports.bind_socket("192.0.2.1", 0, "the gateway", "--host")


def test_port_zero_is_free():
    ports.check_free("127.0.0.1", 0, "the gateway", "--port")


def test_free_ports_are_different_and_free():
    found = ports.free_ports(3)
    assert len(set(found)) == 3
    for port in found:
        ports.check_free("127.0.0.1", port, "a test", "")
