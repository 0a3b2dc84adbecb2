"""The file store: files, names that cannot be guessed, limits and expiry."""

import asyncio
import os
import stat
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.errors import FileNotFound, Overloaded
from gateway.files.content_types import content_type
from gateway.files.file_store import FileStore

Make = Callable[..., FileStore]
PICTURE = b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 40


async def test_a_stored_file_can_be_read(make: Make, tmp_path: Path) -> None:
    files = make()
    id = await files.put(PICTURE, "image/png")
    assert await files.read(id) == PICTURE and await files.size(id) == len(PICTURE)
    assert content_type(id) == "image/png" and id.endswith(".png")
    assert (tmp_path / "state" / "files" / id).read_bytes() == PICTURE
    part = await files.get(id, (10, 20))
    assert b"".join([chunk async for chunk in part.chunks]) == PICTURE[10:20]
    assert (part.start, part.end, part.size) == (10, 20, len(PICTURE))
    # Another gateway, or this one after a restart, finds it too.
    assert await make().read(id) == PICTURE


@pytest.mark.parametrize(
    ("declared", "stored"), [("image/jpeg", "image/jpeg"), ("text/html", "application/octet-stream")]
)
async def test_types_that_a_browser_would_execute_are_replaced(make: Make, declared: str, stored: str) -> None:
    assert content_type(await make().put(b"<script>", declared)) == stored


async def test_names_are_random_or_derived_from_a_given_name(make: Make) -> None:
    files, other = make(), make(files_key="another key, of another service")
    names = {await files.put(b"x", "image/png") for _ in range(100)}
    assert len(names) == 100 and all(len(id) == 36 for id in names)
    named = await files.put(b"first", "image/png", name="task/0")
    assert named == await files.put(b"second", "image/png", name="task/0") == await files.find("task/0", "image/png")
    assert await files.read(named) == b"second"
    assert await files.find("task/1", "image/png") is None
    assert named != await other.put(b"x", "image/png", name="task/0"), "names could be guessed without the key"


@pytest.mark.parametrize(
    "id",
    [
        *(
            "",
            ".",
            "..",
            "../files.key",
            "a" * 32,
            "a" * 32 + ".exe",
            "/etc/passwd",
            "a" * 31 + "/.png",
            "\0",
            "ü" * 32,
        ),
        *("a" * 32 + ".png", "a" * 32 + ".png#1", "x" * 100_000),
    ],
)
async def test_invalid_names_do_not_reach_the_store(make: Make, id: str) -> None:
    files = make()
    await files.put(PICTURE, "image/png")
    for ask in (files.read, files.get, files.size):
        with pytest.raises(FileNotFound):
            await ask(id)


async def test_the_key_file_is_private_and_created_once(make: Make, tmp_path: Path) -> None:
    ids = await asyncio.gather(*(make().put(b"x", "image/png", name="the same") for _ in range(20)))
    assert len(set(ids)) == 1
    key = tmp_path / "state" / "files.key"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600 and len(key.read_bytes()) >= 32
    assert sorted(path.name for path in key.parent.iterdir()) == ["files", "files.key"]


async def test_an_invalid_key_file_is_reported(make: Make, tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "files.key").write_text("short")
    with pytest.raises(Overloaded):
        await make().put(b"x", "image/png")
    with pytest.raises(Overloaded):
        make().verify("a" * 32 + ".png", "1", "x")
    with pytest.raises(Overloaded):
        make().url("a" * 32 + ".png", "http://here")


async def test_no_file_is_created_before_the_first_use(make: Make, tmp_path: Path) -> None:
    make()
    assert not (tmp_path / "state").exists()


async def test_expired_files_are_deleted(make: Make, tmp_path: Path) -> None:
    files = make(files_retention=3600)
    old, new = await files.put(b"old", "image/png"), await files.put(b"new", "image/png")
    folder = tmp_path / "state" / "files"
    long_ago = time.time() - 4000
    os.utime(folder / old, (long_ago, long_ago))
    (folder / "notes.txt").write_text("somebody else's")
    os.utime(folder / "notes.txt", (long_ago, long_ago))
    leftover = folder / f"{new}#1"
    leftover.write_text("half")
    os.utime(leftover, (long_ago, long_ago))
    young = folder / f"{new}#2"
    young.write_text("being written")
    assert await files.sweep() == (1, 3)
    with pytest.raises(FileNotFound):
        await files.read(old)
    assert await files.read(new) == b"new"
    assert sorted(path.name for path in folder.iterdir()) == sorted([new, "notes.txt", young.name])


async def test_the_oldest_files_are_deleted_when_the_store_is_full(make: Make, tmp_path: Path) -> None:
    files = make(files_max_bytes=2500)
    ids = [await make().put(bytes(1000), "image/png") for _ in range(5)]
    for age, id in enumerate(reversed(ids)):
        when = time.time() - age
        os.utime(tmp_path / "state" / "files" / id, (when, when))
    assert await files.sweep() == (3, 2000)
    stored = {path.name for path in (tmp_path / "state" / "files").iterdir()}
    assert stored == set(ids[3:])


async def test_a_new_file_makes_room_for_itself(make: Make, tmp_path: Path) -> None:
    files = make(files_max_bytes=10_000)
    await files.sweep()
    folder = tmp_path / "state" / "files"
    ids: list[str] = []
    for age in range(100, 70, -1):
        ids.append(await files.put(bytes(1000), "image/png"))
        when = time.time() - age
        os.utime(folder / ids[-1], (when, when))
        stored = {path.name for path in folder.iterdir()}
        assert len(stored) <= 10 and stored == set(ids[-len(stored) :]), "the newest stay"
    together = [files.put(bytes(1000), "image/png") for _ in range(8)]
    kept_now = set(await asyncio.gather(*together))
    assert kept_now <= {path.name for path in folder.iterdir()} and len(list(folder.iterdir())) <= 10


async def test_a_full_store_is_not_scanned_for_each_file(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    files, sweeps = make(files_max_bytes=100_000), []
    sweep = files.sweep

    async def counted(room: int = 0) -> tuple[int, int]:
        sweeps.append(room)
        return await sweep(room)

    monkeypatch.setattr(files, "sweep", counted)
    for _ in range(150):
        await files.put(bytes(1000), "image/png")
    assert sweeps == [10_000] * 5


async def test_removing_a_file_twice_is_no_error(make: Make) -> None:
    files = make()
    id = await files.put(b"x", "image/png")
    await files.delete(id, id, "nonsense")
    with pytest.raises(FileNotFound):
        await files.read(id)


async def test_a_bucket_behaves_like_a_folder(make: Make) -> None:
    files = make(files="memory:///")
    id = await files.put(PICTURE, "image/webp")
    assert await files.read(id) == PICTURE
    assert await files.sweep() == (0, len(PICTURE))
    await files.delete(id)
    with pytest.raises(FileNotFound):
        await files.read(id)


async def test_an_unreachable_bucket_is_reported(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "AWS_ENDPOINT_URL": "http://127.0.0.1:9",
        "AWS_ALLOW_HTTP": "true",
        "AWS_ACCESS_KEY_ID": "x",
        "AWS_SECRET_ACCESS_KEY": "x",
        "AWS_REGION": "x",
    }.items():
        monkeypatch.setenv(name, value)
    files = make(files="s3://bucket/pictures")
    with pytest.raises(Overloaded) as refused:
        await files.put(PICTURE, "image/png")
    assert refused.value.retry_after is not None
