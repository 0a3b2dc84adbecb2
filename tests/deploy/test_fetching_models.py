"""The init container `fetch` brings a folder up to date with a bucket."""

import asyncio
import importlib.util
import os
import sys
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType

import pytest

from tests.deploy.dashboards import ROOT
from tests.fakes.s3 import FakeS3, StoredObject

SCRIPT = ROOT / "deploy/chart/files/fetch_models.py"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("fetch_models", SCRIPT)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def bucket(tmp_path: Path) -> Path:
    bucket = tmp_path / "bucket"
    for name, text in {"chat/config.pbtxt": "max_batch_size: 0", "chat/1/weights": "w" * 100_000, "b/1/m": "m"}.items():
        (bucket / name).parent.mkdir(parents=True, exist_ok=True)
        (bucket / name).write_text(text)
    return bucket


def contents(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


def test_a_repository_is_copied_and_only_changes_are_copied_again(
    script: ModuleType, bucket: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "models/repository"
    assert sorted(script.fetch(f"file://{bucket}", folder)) == ["b/1/m", "chat/1/weights", "chat/config.pbtxt"]
    assert contents(folder) == contents(bucket)
    assert script.fetch(f"file://{bucket}", folder) == []
    (bucket / "chat/config.pbtxt").write_text("max_batch_size: 8")
    (folder / "chat/1/weights").unlink()
    assert sorted(script.fetch(f"file://{bucket}", folder)) == ["chat/1/weights", "chat/config.pbtxt"]
    assert contents(folder) == contents(bucket)


def test_models_that_left_the_bucket_are_removed(script: ModuleType, bucket: Path, tmp_path: Path) -> None:
    folder = tmp_path / "models/repository"
    script.fetch(f"file://{bucket}", folder)
    (bucket / "b/1/m").unlink()
    script.fetch(f"file://{bucket}", folder)
    assert contents(folder) == contents(bucket) and not (folder / "b").exists()


def test_a_bucket_without_objects_empties_no_folder(script: ModuleType, bucket: Path, tmp_path: Path) -> None:
    folder = tmp_path / "models/repository"
    script.fetch(f"file://{bucket}", folder)
    before = contents(folder)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="holds no objects"):
        script.fetch(f"file://{tmp_path}/empty", folder)
    assert contents(folder) == before


async def test_the_init_container_copies_from_s3_with_the_credentials_of_its_environment(tmp_path: Path) -> None:
    bucket = await FakeS3("models").start()
    try:
        objects = {
            "llm/chat/": b"",
            "llm/chat/config.pbtxt": b"c",
            "llm/chat/1/weights": b"w" * 3_000_000,
            "other/x": b"x",
        }
        for key, data in objects.items():
            bucket.objects[key] = StoredObject(data, "application/octet-stream", datetime.now(UTC))
        folder = tmp_path / "models/repository"
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            SCRIPT,
            "s3://models/llm",
            folder,
            env={**os.environ, **bucket.environment()},
            stdout=asyncio.subprocess.PIPE,
        )
        output, _ = await process.communicate()
    finally:
        await bucket.stop()
    assert process.returncode == 0 and output == b"Copied 2 files.\n"
    assert contents(folder) == {"chat/config.pbtxt": "c", "chat/1/weights": "w" * 3_000_000}
