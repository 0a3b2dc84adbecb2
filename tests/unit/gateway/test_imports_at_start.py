"""What a gateway imports at its start: each worker has these modules in its memory."""

import subprocess
import sys

UNNEEDED = {"PIL", "av", "dbos", "grpc", "lxml", "numpy", "opentelemetry.sdk", "psycopg", "sqlalchemy", "torch"}
"""Packages for some requests and settings. `grpc` and `numpy` alone take 25 MB."""


def run(program: str) -> list[str]:
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()


def test_a_gateway_does_without_the_packages_of_some_requests() -> None:
    imported = set(run("import sys, tritonic.cli, tritonic.serve, gateway.app; print(*sys.modules)"))
    assert {"uvicorn", "fastapi", "tritonclient.grpc.service_pb2"} <= imported
    assert not UNNEEDED & imported


def test_the_messages_are_those_of_the_package_whoever_imports_it_first() -> None:
    imports = ["from gateway.triton import messages", "from tritonclient.grpc import service_pb2"]
    check = "assert messages.service_pb2 is service_pb2; print('same')"
    for program in (imports, reversed(imports)):
        assert run("\n".join((*program, check))) == ["same"]
