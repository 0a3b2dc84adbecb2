"""Models that speak: their layouts, their packages, and what is built of them."""

import hashlib
import io
import json
import shutil
import tarfile
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import hibari
import numpy as np
import pytest
from huggingface_hub import HfApi

from builders import config_pbtxt, npm_registry, packaged_files, recipe
from builders.build import BuildResult, build
from builders.errors import RecipeError, SourceUnavailable, UnsupportedModel, VerificationFailed
from builders.packaged_files import NpmArchive, PackagedFile, WheelPart
from builders.progress import NullProgress
from builders.speech import packages, sources
from builders.speech.dequantize import dequantize
from builders.speech.layout import read_layout, read_vocabulary
from builders.speech.packages import PACKAGED_SPEECH, PackagedVoices, SpeechPackage
from builders.speech.verify import PHONEMES, spectral_similarity, verify

ASSETS = Path(hibari.__file__).parent / "assets"


def make(source: Path | str, **values: Any) -> recipe.Recipe:
    return recipe.make(**{"family": "speech", "name": "voice", "source": str(source)} | values)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The repository of hibari on the hub, with two of its voices. The second is a copy of the first."""
    folder = tmp_path_factory.mktemp("hibari")
    (folder / "voices").mkdir()
    shutil.copy(ASSETS / "hibari.onnx", folder)
    shutil.copy(ASSETS / "hibari.onnx", folder / "voices" / "bf_emma.int8.onnx")
    return folder


@pytest.fixture(scope="module")
def built(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> BuildResult:
    return build(make(folder, default_voice="emma", max_rows=4), tmp_path_factory.mktemp("built") / "repository")


def test_config_pbtxt_tells_the_voices(built: BuildResult) -> None:
    config = config_pbtxt.parse((built.folder / "config.pbtxt").read_text())
    parameters = {key: value.string_value for key, value in config.parameters.items()}
    assert json.loads(parameters["voices"]) == [
        {"id": "heart", "name": "Heart", "language": "en-US", "gender": "female"},
        {"id": "emma", "name": "Emma", "language": "en-GB", "gender": "female"},
    ]
    assert json.loads(parameters["operations"]) == ["speak"]
    assert json.loads(parameters["languages"]) == ["en-US", "en-GB"]
    assert (parameters["signature"], parameters["default_voice"]) == ("speech", "emma")
    assert (parameters["sample_rate"], parameters["max_characters"]) == ("24000", "100000")
    assert (parameters["follows_instructions"], parameters["max_rows"]) == ("false", "4")
    assert (parameters["phonemizer"], parameters["precision"]) == ("hibari", "int8")
    assert (config.backend, config.max_batch_size) == ("speech", 0)
    assert config.model_transaction_policy.decoupled
    assert {tensor.name: tensor.optional for tensor in config.input} == {
        "text": False, "voice": True, "language": True, "speed": True, "instructions": True,
    }  # fmt: skip


def test_the_built_model_is_compared_with_its_source(built: BuildResult, folder: Path) -> None:
    assert built.metrics["difference_max"] == 0 and built.metrics["voices"] == 2
    assert sorted(path.name for path in (built.folder / "1").iterdir()) == ["emma.onnx", "heart.onnx", "model.json"]
    model = json.loads((built.folder / "1" / "model.json").read_bytes())
    assert (model["family"], model["sample_rate"], model["voices"]["emma"]) == ("hibari", 24_000, "emma.onnx")
    assert model["vocabulary"] == json.loads((ASSETS / "vocab.json").read_bytes())
    assert not build(make(folder, default_voice="emma", max_rows=4), built.folder.parent).is_new


@pytest.mark.parametrize(
    ("values", "error", "sentence"),
    [
        ({"target": "tensorrt"}, UnsupportedModel, "target 'tensorrt' is not built yet"),
        ({"precision": "int4"}, UnsupportedModel, "int8 and fp32, not int4"),
        ({"precision": "fp32"}, UnsupportedModel, "published in int8; fp32 is not built"),
        ({"default_voice": "eve"}, RecipeError, "'eve'; the voices are heart, emma"),
        ({"context_length": 100}, RecipeError, "context_length is not an option"),
        ({"source": "packaged:eve"}, RecipeError, "no packaged voice 'eve'. Known: hibari, kokoro-82m"),
        ({"source": "/nowhere"}, SourceUnavailable, "no folder"),
    ],
)
def test_what_cannot_be_built_is_refused(
    folder: Path, tmp_path: Path, values: dict[str, Any], error: type[Exception], sentence: str
) -> None:
    with pytest.raises(error, match=sentence):
        build(make(**{"source": folder} | values), tmp_path / "repository")
    assert not (tmp_path / "repository" / "voice").exists()


def test_kokoro_is_found_in_the_layout_of_the_hub(tmp_path: Path) -> None:
    names = ["onnx/model.onnx", "onnx/model_q4.onnx", "onnx/model_quantized.onnx", "tokenizer.json", "README.md"]
    voices = ["voices/af_heart.bin", "voices/bm_george.bin", "voices/ff_siwis.bin", "voices/zf_xiaobei.bin"]
    layout = read_layout([*names, *voices], "it")
    assert (layout.family, [voice.id for voice in layout.voices]) == ("kokoro", ["af_heart", "bm_george"])
    george = layout.voices[1]
    assert (george.name, george.language, george.gender) == ("George", "en-GB", "male")
    assert layout.files("int8")[:2] == ["onnx/model_quantized.onnx", "tokenizer.json"]
    assert layout.files("fp32")[0] == "onnx/model.onnx"
    (tmp_path / "tokenizer.json").write_text(json.dumps({"model": {"vocab": {"$": 0, "a": 43, "<pad>": 1}}}))
    assert read_vocabulary(tmp_path, layout) == {"a": 43}
    with pytest.raises(UnsupportedModel, match=r"no network in int8.*--precision fp32"):
        local = tmp_path / "local"
        for name in ("onnx/model.onnx", "voices/af_heart.bin"):
            (local / name).parent.mkdir(parents=True, exist_ok=True)
            (local / name).write_bytes(b"")
        build(make(local), tmp_path / "repository")


def test_other_folders_are_refused_with_what_they_lack() -> None:
    with pytest.raises(UnsupportedModel, match=r"neither a network of Kokoro .* nor a voice of hibari .*onnx\)\.$"):
        read_layout(["config.json"], "it")
    with pytest.raises(UnsupportedModel, match="PyTorch's weights are not read: onnx-community"):
        read_layout(["kokoro-v1_0.pth", "voices/af_heart.pt"], "hexgrad/Kokoro-82M")


def test_the_hub_is_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def answer(self: HfApi, id: str, **options: object) -> object:
        asked.append(id)
        files = {"onnx/model.onnx": 300, "onnx/model_quantized.onnx": 90, "voices/af_heart.bin": 5, "other.onnx": 7}
        return SimpleNamespace(sha="0123", siblings=[SimpleNamespace(rfilename=k, size=v) for k, v in files.items()])

    monkeypatch.setattr(HfApi, "model_info", answer)
    source = sources.resolve("onnx-community/Kokoro-82M-v1.0-ONNX")
    assert isinstance(source, sources.HubSpeechSource)
    assert (source.digest(), source.size_bytes()) == ("hf:onnx-community/Kokoro-82M-v1.0-ONNX@0123", 395)
    assert source.layout().family == "kokoro" and asked == ["onnx-community/Kokoro-82M-v1.0-ONNX"]


# ---- packages


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SpeechPackage:
    """A package of two wheels and an npm archive, which stand-ins of pip and of the registry hand out."""
    monkeypatch.setenv("TRITONIC_CACHE", str(tmp_path / "cache"))
    archive = tmp_path / "npm" / "voices-js" / "-" / "voices-js-1.0.tgz"
    archive.parent.mkdir(parents=True)
    with tarfile.open(archive, "w:gz") as files:
        for name in ("package/voices/af_ann.bin", "package/voices/zf_li.bin", "package/index.js"):
            member = tarfile.TarInfo(name)
            member.size = len(name)
            files.addfile(member, io.BytesIO(name.encode()))

    def download_wheel(requirement: str, folder: Path) -> Path:
        with zipfile.ZipFile(folder / "it.whl", "w") as wheel:
            wheel.writestr("part.bin", f"<{requirement}>")
        return folder / "it.whl"

    def open_url(url: str, timeout: float) -> io.BytesIO:
        assert url == "https://npm.test/voices-js/-/voices-js-1.0.tgz"
        return io.BytesIO(archive.read_bytes())

    monkeypatch.setattr(packaged_files, "download_wheel", download_wheel)
    monkeypatch.setattr("urllib.request.urlopen", open_url)
    monkeypatch.setenv("npm_config_registry", "https://npm.test/")
    content, data = b"<one==1><two==2>", archive.read_bytes()
    parts = (WheelPart("one==1", "part.bin"), WheelPart("two==2", "part.bin"))
    return SpeechPackage(
        PackagedFile("model_quantized.onnx", parts, hashlib.sha256(content).hexdigest(), len(content)),
        path="onnx/model_quantized.onnx",
        voices=PackagedVoices(
            PackagedFile("v.tgz", (NpmArchive("voices-js", "1.0"),), hashlib.sha256(data).hexdigest(), len(data)),
            prefixes=("package/voices/af_",),
            size_bytes=len("package/voices/af_ann.bin"),
        ),
    )


def test_packages_are_put_together_once(
    package: SpeechPackage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = packages.fetch(package, tmp_path / "first", NullProgress())
    assert (found / "onnx" / "model_quantized.onnx").read_bytes() == b"<one==1><two==2>"
    assert [path.name for path in (found / "voices").iterdir()] == ["af_ann.bin"]
    assert sources.PackagedSpeechSource(package).scratch_bytes() == (found / "voices" / "af_ann.bin").stat().st_size
    assert package.voices
    cached = {package.network.sha256, package.voices.archive.sha256}
    assert {path.name for path in packaged_files.open_cache().iterdir()} == cached, "nothing else is left in the cache"
    monkeypatch.setattr(packaged_files, "download_wheel", None)
    monkeypatch.setattr("urllib.request.urlopen", None)
    again = packages.fetch(package, tmp_path / "second", NullProgress())
    assert (again / package.path).read_bytes() == b"<one==1><two==2>"


def test_a_damaged_cache_is_replaced(package: SpeechPackage, tmp_path: Path) -> None:
    packages.fetch(package, tmp_path / "first", NullProgress())
    assert package.voices
    for file in (package.network, package.voices.archive):
        file.cached_path().write_bytes(b"damaged")
    found = packages.fetch(package, tmp_path / "second", NullProgress())
    assert (found / package.path).read_bytes() == b"<one==1><two==2>"
    assert (found / "voices" / "af_ann.bin").read_bytes() == b"package/voices/af_ann.bin"


def test_other_contents_than_the_pinned_ones_are_not_used(package: SpeechPackage, tmp_path: Path) -> None:
    assert package.voices
    archive = replace(package.voices.archive, sha256="0")
    network = replace(package, network=replace(package.network, sha256="0"))
    for changed in (network, replace(package, voices=replace(package.voices, archive=archive))):
        with pytest.raises(SourceUnavailable, match="than expected: sha256"):
            packages.fetch(changed, tmp_path / "scratch", NullProgress())
        assert not (packaged_files.open_cache() / "0").exists()


def test_npm_is_asked_where_npm_itself_asks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("npm_config_registry", "NPM_CONFIG_REGISTRY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    assert npm_registry.registry() == "https://registry.npmjs.org"
    (tmp_path / ".npmrc").write_text("fund=false\nregistry = https://mirror.test/npm/\n")
    assert npm_registry.registry() == "https://mirror.test/npm"
    monkeypatch.setenv("npm_config_registry", "file:///etc")
    with pytest.raises(SourceUnavailable, match="is no web address"):
        npm_registry.download("x", "1", tmp_path)
    monkeypatch.setenv("npm_config_registry", "http://127.0.0.1:9")
    with pytest.raises(SourceUnavailable, match=r"could not be downloaded.*npm_config_registry names another"):
        npm_registry.download("x", "1", tmp_path)


def test_the_default_is_the_voice_of_the_pinned_library() -> None:
    assert recipe.load(recipe.DEFAULT_SPEECH_RECIPE).source == "packaged:hibari"
    network = PACKAGED_SPEECH["hibari"].network
    (part,) = network.parts
    assert part.requirement == f"hibari-tts=={hibari.__version__}"
    assert network.sha256 == hashlib.sha256((ASSETS / "hibari.onnx").read_bytes()).hexdigest()


# ---- conversion and verification


def quantized_graph(path: Path, weights: np.ndarray, bias: np.ndarray) -> None:
    """Write x @ weights + bias as onnxruntime quantizes it dynamically, with the bias rounded to the scale."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    scale = np.float32(np.abs(weights).max() / 127)
    integers = np.round(weights / scale).astype(np.int8)
    constants = {"w": integers, "z": np.int8(0), "s": scale, "b": bias}
    nodes = [
        helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "qs", "qz"]),
        helper.make_node("MatMulInteger", ["q", "w", "qz", "z"], ["product"]),
        helper.make_node("Mul", ["qs", "s"], ["both"]),
        helper.make_node("Div", ["b", "both"], ["scaled"]),
        helper.make_node("Floor", ["scaled"], ["floor"]),
        helper.make_node("Cast", ["floor"], ["integer"], to=TensorProto.INT32),
        helper.make_node("Add", ["product", "integer"], ["sum"]),
        helper.make_node("Cast", ["sum"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["float", "both"], ["y"]),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", len(weights)])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", weights.shape[1]])
    initializers = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "quantized", [x], [y], initializers)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(path))


def test_a_float_graph_computes_with_the_dequantized_weights(tmp_path: Path) -> None:
    import onnxruntime

    chance = np.random.default_rng(0)
    weights, bias = chance.normal(size=(16, 8)).astype(np.float32), chance.normal(size=8).astype(np.float32)
    quantized_graph(tmp_path / "int8.onnx", weights, bias)
    assert dequantize(tmp_path / "int8.onnx", tmp_path / "fp32.onnx") == 1
    x = chance.normal(size=(5, 16)).astype(np.float32)
    before, after = (
        onnxruntime.InferenceSession(str(tmp_path / f"{name}.onnx")).run(None, {"x": x})[0] for name in ("int8", "fp32")
    )
    scale = np.abs(weights).max() / 127
    assert np.abs(after - (x @ (np.round(weights / scale) * scale) + bias)).max() < 1e-5
    assert 1e-4 < np.abs(after - before).max() < 0.1


def speech_like(seed: int) -> np.ndarray:
    """One second of noise whose volume and colour change as those of speech."""
    chance = np.random.default_rng(seed)
    volume = np.repeat(chance.uniform(0.01, 1, 12), 2000)
    return (np.cumsum(chance.normal(size=24_000)) * 0.002 * volume).astype(np.float32)


def test_similarity_forgives_shifts_but_not_other_sounds() -> None:
    one, other = speech_like(1), speech_like(2)
    longer = np.interp(np.linspace(0, len(one) - 1, 25_000), np.arange(len(one)), one).astype(np.float32)
    assert spectral_similarity(one, one) > 0.999
    assert spectral_similarity(one, longer) > 0.97
    assert spectral_similarity(one, other) < 0.9


@pytest.mark.parametrize(
    ("ours", "is_copy", "sentence"),
    [
        (lambda samples: samples + 0.01, True, "does not say what its source says"),
        (lambda samples: speech_like(9), False, "does not say what its source says"),
        (lambda samples: samples * 0, True, "a volume of 0"),
        (lambda samples: np.tile(samples, 100), True, r"speaks 100\.00 s"),
        (lambda samples: samples * np.nan, True, "no finite numbers"),
    ],
)
def test_a_model_that_says_something_else_is_not_installed(
    ours: Callable[[np.ndarray], np.ndarray], is_copy: bool, sentence: str
) -> None:
    vocabulary = json.loads((ASSETS / "vocab.json").read_bytes())
    source = speech_like(1)
    with pytest.raises(VerificationFailed, match=sentence):
        verify(
            lambda ids, voice: ours(source),
            lambda ids, voice: source,
            ["ann"],
            {symbol: vocabulary[symbol] for symbol in PHONEMES[0]},
            24_000,
            is_copy=is_copy,
            progress=NullProgress(),
        )
