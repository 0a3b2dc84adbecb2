"""The builder of vision-language models takes the captioner as it takes any checkpoint of the family."""

import json
from pathlib import Path

import pytest

from builders import recipe
from builders.build import build
from builders.config_pbtxt import parse
from training.shapes_captioner.networks import IMAGE_TOKENS, TILE, tiny_captioner
from training.shapes_captioner.tokenizer import TEMPLATE

pytestmark = pytest.mark.exports


def test_the_captioner_is_built_and_answers_as_its_source(tmp_path: Path) -> None:
    tiny_captioner(tmp_path / "weights")
    wanted = recipe.make(name="captioner", source=str(tmp_path / "weights"), precision="fp32")
    built = build(wanted, tmp_path / "repository")
    assert built.metrics["pictures"]["identical_answers"] == built.metrics["pictures"]["prompts"] == 3
    config = parse((built.folder / "config.pbtxt").read_text())
    assert json.loads(config.parameters["modalities"].string_value) == ["text", "image"]
    assert config.parameters["chat_template"].string_value == TEMPLATE
    vision = json.loads((built.folder / "1" / "vision.json").read_bytes())
    assert (vision["tile"], vision["tokens_per_tile"], vision["split"]) == (TILE, IMAGE_TOKENS, False)
