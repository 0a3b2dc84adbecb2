"""Recipes: TOML gives a frozen recipe or an error message."""

from pathlib import Path
from typing import get_args

import pytest
from pydantic import ValidationError

from builders import manifest, recipe
from builders.errors import RecipeError
from gateway.prompting import reasoning, tool_calls


@pytest.mark.parametrize("name", recipe.recipe_names())
def test_the_projects_recipes_are_valid_and_named_after_their_files(name: str) -> None:
    assert recipe.load(name).name == name


def test_the_default_recipe_exists() -> None:
    assert recipe.DEFAULT_LLM_RECIPE in recipe.recipe_names()


def test_a_file_with_overrides(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('name = "mine"\nsource = "Qwen/Qwen2.5-0.5B-Instruct"\n[quantization]\nblock_size = 64\n')
    mine = recipe.load(str(path), precision="int4", served_name=None)
    assert (mine.name, mine.precision, mine.served_name) == ("mine", "int4", None)
    assert mine.quantization is not None and mine.quantization.block_size == 64


def test_a_recipe_is_frozen() -> None:
    with pytest.raises(ValidationError):
        recipe.load(recipe.DEFAULT_LLM_RECIPE).precision = "int4"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("name = ", "not valid TOML"),
        ('name = "a"', "source: Field required"),
        ('name = "a"\nsource = "b"\nprecison = "int8"', "precison: Extra inputs"),
        ('name = "a/b"\nsource = "b"', "name: "),
        ('name = ".a"\nsource = "b"', "name: "),
        ('name = "a"\nsource = "b"\nmax_rows = 0', "max_rows: "),
        ('name = "a"\nsource = "b"\nserved_name = "x\\ny"', "control characters"),
        ('name = "a"\nsource = "b"\ntool_call_parser = "morse"', "tool_call_parser: Input should be 'hermes'"),
        ('name = "a"\nsource = "b"\nreasoning_parser = "mind"', "reasoning_parser: Input should be 'think'"),
        ('name = "a"\nsource = "b"\n[quantization]\nblock_size = 20', "quantization.block_size: "),
    ],
)
def test_invalid_recipes_are_refused_with_a_message(tmp_path: Path, text: str, sentence: str) -> None:
    path = tmp_path / "faulty.toml"
    path.write_text(text)
    with pytest.raises(RecipeError, match=sentence):
        recipe.load(str(path))


def test_unreadable_files(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="Known: "):
        recipe.load(str(tmp_path / "absent.toml"))
    (tmp_path / "latin.toml").write_bytes(b'name = "\xe9"')
    with pytest.raises(RecipeError, match="not valid TOML"):
        recipe.load(str(tmp_path / "latin.toml"))


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("Qwen/Qwen2.5-0.5B-Instruct", "qwen2.5-0.5b-instruct"),
        ("/models/My Model/", "my-model"),
        ("packaged:smollm2-135m-instruct", "smollm2-135m-instruct"),
        ("/", "model"),
    ],
)
def test_model_names_are_derived_from_sources(source: str, name: str) -> None:
    assert recipe.default_model_name(source) == name


def test_the_fingerprint_changes_with_the_build() -> None:
    base = recipe.make(name="a", source="/one")
    same = recipe.make(name="a", source="/two")
    assert manifest.fingerprint(base, "digest") == manifest.fingerprint(same, "digest")
    assert manifest.fingerprint(base, "digest") != manifest.fingerprint(base, "other")
    spelt_out = recipe.make(name="a", source="/one", quantization=recipe.QUANTIZATIONS["int8"].model_dump())
    assert manifest.fingerprint(base, "digest") == manifest.fingerprint(spelt_out, "digest")
    for change in ({"precision": "int4"}, {"max_rows": 8}, {"quantization": {"block_size": 64}}):
        changed = recipe.make(name="a", source="/one", **change)
        assert manifest.fingerprint(base, "digest") != manifest.fingerprint(changed, "digest")


def test_fields_of_other_families_do_not_change_a_fingerprint() -> None:
    for family, same in (("embedding", True), ("diffusion", True), ("llm", False)):
        one, other = (
            manifest.fingerprint(
                recipe.make(name="a", source="/one", family=family, special_tokens_in_content=setting), ""
            )
            for setting in ("text", "recognised")
        )
        assert (one == other) == same


@pytest.mark.parametrize(("family", "tokens"), [("llm", -1), ("embedding", 0), ("embedding", -2)])
def test_only_embedding_models_truncate_inputs(family: str, tokens: int) -> None:
    assert recipe.make(name="a", source="/one", family="embedding", truncate_prompt_tokens=-1)
    with pytest.raises(RecipeError, match="truncate_prompt_tokens"):
        recipe.make(name="a", source="/one", family=family, truncate_prompt_tokens=tokens)


def test_the_fingerprint_says_how_an_embedding_model_is_compressed(monkeypatch: pytest.MonkeyPatch) -> None:
    small = recipe.make(name="a", source="/one", family="embedding", precision="int8")
    before, quantization = manifest.fingerprint(small, "digest"), recipe.quantization_of(small)
    assert quantization and quantization.block_size == 32 != recipe.QUANTIZATIONS["int8"].block_size
    monkeypatch.setitem(recipe.QUANTIZATIONS, "int8", recipe.Quantization(block_size=128))
    assert manifest.fingerprint(small, "digest") == before
    monkeypatch.setitem(recipe.EMBEDDING_QUANTIZATIONS, "int8", recipe.Quantization(block_size=64))
    assert manifest.fingerprint(small, "digest") != before


def test_recipes_name_the_parsers_of_the_gateway() -> None:
    assert set(get_args(recipe.ToolCallParser)) == set(tool_calls.PARSERS)
    assert set(get_args(recipe.ReasoningParser)) == set(reasoning.REASONING_PARSERS)
