"""A full disk: a clear error, no partial file, and all earlier files intact."""

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gateway.errors import Overloaded, StorageFull
from gateway.files.file_store import FileStore


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one megabyte."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"no disk of the test's own can be mounted here: {mounted.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


async def test_a_failed_write_leaves_no_partial_file(make: Callable[..., FileStore], small_disk: Path) -> None:
    files = make(files=str(small_disk / "files"))
    stored = await files.put(bytes(700_000), "image/png", name="stored")
    for _ in range(3):
        with pytest.raises(StorageFull) as refused:
            await files.put(bytes(600_000), "image/png")
        assert refused.value.status == 507 and "full" in refused.value.message
    with pytest.raises(StorageFull):
        await files.put(bytes(600_000), "image/png", name="stored")
    assert [path.name for path in (small_disk / "files").iterdir()] == [stored]
    assert await files.read(stored) == bytes(700_000)
    await files.delete(stored)
    assert len(await files.read(await files.put(bytes(900_000), "image/png"))) == 900_000


async def test_an_unusable_folder_is_an_error(make: Callable[..., FileStore], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(Overloaded):
        await make(files=str(tmp_path / "file" / "files")).put(b"x", "image/png")
