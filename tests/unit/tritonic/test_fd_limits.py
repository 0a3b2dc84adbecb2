"""The number of connections follows from the limit of file descriptors."""

import resource
import subprocess
import sys

import pytest

from tritonic.fd_limits import max_connections


@pytest.mark.parametrize(
    ("descriptors", "wanted", "bound"),
    [
        (20_000, 4096, 4096),
        (resource.RLIM_INFINITY, 4096, 4096),
        (1024, 4096, 768),
        (256, 4096, 128),
        (1024, 10, 10),
        (1, 10, 1),
    ],
)
def test_descriptors_are_reserved_for_other_files(descriptors: int, wanted: int, bound: int) -> None:
    assert max_connections(descriptors, wanted) == bound


def test_the_soft_limit_is_raised_to_the_hard_one() -> None:
    code = (
        "import os, resource; resource.setrlimit(resource.RLIMIT_NOFILE, (40, 90))\n"
        "from tritonic.fd_limits import raise_limit, is_exhausted\n"
        "print(raise_limit(), raise_limit(), *resource.getrlimit(resource.RLIMIT_NOFILE), is_exhausted())\n"
        "files = []\n"
        "try:\n    while True: files.append(os.open('/dev/null', os.O_RDONLY))\n"
        "except OSError: print(is_exhausted())\n"
    )
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60).stdout
    assert output.split() == ["90", "90", "90", "90", "False", "True"]
