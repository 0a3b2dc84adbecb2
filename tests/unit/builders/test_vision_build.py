"""Vision-language checkpoints, split and exported for real, and compared with transformers."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from builders import recipe
from builders.build import BuildResult, build
from builders.checkpoint import Checkpoint
from builders.config_pbtxt import parse
from builders.errors import SourceUnavailable, UnsupportedModel, VerificationFailed
from builders.llm.builder import LLMBuilder
from builders.llm.verify import TOLERANCES
from builders.progress import NullProgress
from builders.sources import LocalSource
from builders.vision import idefics3
from builders.vision.verify import verify
from tests.fakes.tiny_smolvlm import TEMPLATE, expansion, make_checkpoint

pytestmark = pytest.mark.exports


def byte_tokenizer() -> Tokenizer:
    specials = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={t: i for i, t in enumerate(specials + alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(specials)
    return tokenizer


@pytest.fixture(scope="module", params=["smolvlm", "idefics3"])
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoints") / request.param
    return make_checkpoint(folder, byte_tokenizer(), family=request.param)


@pytest.fixture(scope="module")
def built(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> BuildResult:
    wanted = recipe.make(name="seeing", source=str(checkpoint), precision="fp32")
    return build(wanted, tmp_path_factory.mktemp("built") / "repository")


@pytest.fixture
def copy(checkpoint: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(checkpoint, tmp_path / "copy"))


def change(file: Path, **values: object) -> None:
    file.write_text(json.dumps(json.loads(file.read_bytes()) | values))


def test_answers_are_those_of_the_source(built: BuildResult) -> None:
    pictures = built.metrics["pictures"]
    assert pictures["identical_answers"] == pictures["prompts"] == 3
    assert pictures["logit_error"] < 1e-5
    assert built.metrics["identical_answers"] == built.metrics["prompts"]


def test_the_installed_model_declares_its_modalities(built: BuildResult, checkpoint: Path) -> None:
    config = parse((built.folder / "config.pbtxt").read_text())
    assert json.loads(config.parameters["modalities"].string_value) == ["text", "image"]
    assert config.parameters["chat_template"].string_value == TEMPLATE
    vision = json.loads((built.folder / "1" / "vision.json").read_bytes())
    assert (vision["tile"], vision["longest_edge"], vision["tokens_per_tile"]) == (64, 256, 4)
    assert vision["image_token_id"] == json.loads((checkpoint / "config.json").read_bytes())["image_token_id"]
    embedding = np.load(built.folder / "1" / "embedding.npy", mmap_mode="r")
    assert embedding.dtype == np.float32 and embedding.shape[1] == 64


def test_a_wrong_image_encoder_is_refused(built: BuildResult, checkpoint: Path, tmp_path: Path) -> None:
    engine = Path(shutil.copytree(built.folder / "1", tmp_path / "engine"))
    embedding = np.load(engine / "embedding.npy")
    np.save(engine / "embedding.npy", embedding[:, ::-1])
    with pytest.raises(VerificationFailed, match="does not see as the source model does"):
        verify(Checkpoint(checkpoint), engine, TOLERANCES["fp32"], NullProgress())


@pytest.mark.parametrize(("rows", "columns"), [(0, 0), (1, 1), (1, 4), (3, 2)])
def test_placeholders_are_those_of_the_familys_processor(checkpoint: Path, rows: int, columns: int) -> None:
    vision = idefics3.vision_config(Checkpoint(checkpoint))
    assert idefics3.image_placeholder(vision, rows, columns) == expansion(rows, columns)


def test_the_preprocessor_of_newer_checkpoints_is_found(copy: Path) -> None:
    before = idefics3.vision_config(Checkpoint(copy))
    old = copy / "preprocessor_config.json"
    (copy / "processor_config.json").write_text(json.dumps({"image_processor": json.loads(old.read_bytes())}))
    old.unlink()
    assert idefics3.vision_config(Checkpoint(copy)) == before


def test_a_checkpoint_without_a_preprocessor_is_refused(copy: Path) -> None:
    (copy / "preprocessor_config.json").unlink()
    with pytest.raises(SourceUnavailable, match=r"preprocessor_config\.json"):
        idefics3.vision_config(Checkpoint(copy))


def test_a_preprocessor_that_leaves_out_steps_is_refused(copy: Path) -> None:
    change(copy / "preprocessor_config.json", do_normalize=False)
    with pytest.raises(UnsupportedModel, match="do_normalize"):
        idefics3.vision_config(Checkpoint(copy))


def test_a_tokenizer_of_another_model_is_refused(copy: Path) -> None:
    byte_tokenizer().save(str(copy / "tokenizer.json"))
    with pytest.raises(SourceUnavailable, match="<image>"):
        idefics3.vision_config(Checkpoint(copy))


def test_contradicting_image_tokens_are_refused(copy: Path) -> None:
    change(copy / "config.json", image_token_id=7)
    with pytest.raises(SourceUnavailable, match="is the token 7"):
        idefics3.vision_config(Checkpoint(copy))


def test_the_disk_check_includes_the_split_checkpoint(checkpoint: Path) -> None:
    needed = LLMBuilder().check(
        recipe.make(name="x", source=str(checkpoint), precision="fp32"), LocalSource(checkpoint)
    )
    weights = (checkpoint / "model.safetensors").stat().st_size
    assert needed > 2 * weights


def test_another_text_model_is_refused_before_the_export(copy: Path, tmp_path: Path) -> None:
    config = json.loads((copy / "config.json").read_bytes())
    change(copy / "config.json", text_config=config["text_config"] | {"model_type": "mistral"})
    with pytest.raises(UnsupportedModel, match="mistral"):
        build(recipe.make(name="other", source=str(copy)), tmp_path / "repository")
    assert not (tmp_path / "repository").exists()
