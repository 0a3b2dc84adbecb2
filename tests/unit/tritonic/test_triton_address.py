"""The addresses and the restricted protocols of the embedded Triton."""

import socket
from pathlib import Path

import pytest

from tritonic import triton_address
from tritonic.triton_address import SocketFolder


def test_http_is_closed_and_loading_code_requires_the_secret() -> None:
    options = triton_address.server_options("unix:/x/grpc", None, 1, 8002, "s3cret")
    assert "--allow-http=false" in options and not [each for each in options if each.startswith("--http")]
    assert "--allow-sagemaker=false" in options and "--allow-vertex-ai=false" in options
    assert "--grpc-restricted-protocol=model-repository,shared-memory,trace,logging:tritonic=s3cret" in options
    assert "--metrics-address=127.0.0.1" in options


def test_an_open_http_endpoint_is_restricted() -> None:
    options = triton_address.server_options("127.0.0.1", 8000, 8001, 8002, "s3cret")
    assert {"--allow-http=true", "--http-address=127.0.0.1", "--http-port=8000"} < set(options)
    assert "--http-restricted-api=model-repository,shared-memory,trace,logging:tritonic-secret=s3cret" in options


def test_no_two_secrets_are_alike() -> None:
    assert len({triton_address.new_secret() for _ in range(100)}) == 100
    assert len(triton_address.new_secret()) >= 43


def test_the_folder_of_a_socket_is_private(tmp_path: Path) -> None:
    (tmp_path / "socket").mkdir(mode=0o755)
    folder = SocketFolder(tmp_path)
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(tmp_path / "socket" / "grpc:1"))
    folder.make()
    assert list((tmp_path / "socket").iterdir()) == []
    assert (tmp_path / "socket").stat().st_mode & 0o777 == 0o700
    assert folder.socket == f"unix:{tmp_path}/socket/grpc"


# The folder is removed with the object, as `SocketFolder` documents.
@pytest.mark.filterwarnings("ignore:Implicitly cleaning up <TemporaryDirectory:ResourceWarning")
def test_a_folder_that_cannot_hold_a_socket_is_replaced(tmp_path: Path) -> None:
    for name in ("long" * 30, "with,comma", "with space", "100%", "ü"):
        folder = SocketFolder(tmp_path / name)
        folder.make()
        path = Path(folder.socket.removeprefix("unix:")).parent
        assert tmp_path not in path.parents and path.stat().st_mode & 0o777 == 0o700
        del folder
        assert not path.exists()
