"""A tiny SmolVLM, built by the real builder: its answers in the real Triton are those of transformers."""

import asyncio
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from tokenizers import Tokenizer

from builders import recipe
from builders.build import build
from tests.fakes.tiny_smolvlm import TILE, make_checkpoint
from tests.triton.conftest import Loader
from tests.triton.engine import Engine
from tests.triton.installing import install_copy
from tests.triton.seeing import Asker, Source, encoded, photo
from tests.wire.gateway_server import RunningGateway
from tritonic.embedded import EmbeddedTriton

pytestmark = [pytest.mark.triton, pytest.mark.asyncio(loop_scope="session")]

WHOLE = {"size": {"longest_edge": TILE}}
"""A preprocessor configuration that splits no image into tiles."""


@pytest.fixture(scope="session")
def checkpoint(default_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    tokenizer = Tokenizer.from_file(str(default_folder / "1" / "tokenizer.json"))
    return make_checkpoint(tmp_path_factory.mktemp("checkpoints") / "seeing", tokenizer)


@pytest.fixture(scope="session")
def built(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    wanted = recipe.make(name="seeing", source=str(checkpoint), precision="fp32", max_rows=4)
    return build(wanted, tmp_path_factory.mktemp("built") / "repository").folder


@pytest.fixture(scope="session")
def source(checkpoint: Path) -> Source:
    return Source(checkpoint, Tokenizer.from_file(str(checkpoint / "tokenizer.json")))


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def ask(built: Path, repository: Path, triton: EmbeddedTriton, load: Loader) -> Asker:
    install_copy(built, repository, "seeing")
    await load("seeing")
    return Asker(triton.grpc_url, "seeing")


async def test_a_prompt_without_pictures(ask: Asker, source: Source) -> None:
    prompt = source.render(["What is the capital of France?"])
    assert await ask(prompt) == source.answer(prompt, [])


@pytest.mark.parametrize("size", [(200, 150), (64, 64), (37, 90), (1600, 500), (3, 900)])
async def test_one_picture(ask: Asker, source: Source, size: tuple[int, int]) -> None:
    picture = photo(*size, seed=1)
    prompt = source.render(["<image>", "What is this?"])
    assert await ask(prompt, [encoded(picture)]) == source.answer(prompt, [picture])


async def test_two_pictures_in_two_turns(ask: Asker, source: Source) -> None:
    pictures = [photo(320, 200, seed=2), photo(100, 220, seed=3)]
    prompt = source.render(["<image>", "What is this?"], ["A cat."], ["And", "<image>", "this?"])
    assert await ask(prompt, [encoded(picture) for picture in pictures]) == source.answer(prompt, pictures)


async def test_what_comes_whole_is_what_is_streamed(ask: Asker, source: Source) -> None:
    prompt, picture = source.render(["<image>", "Well?"]), encoded(photo(90, 90, seed=4))
    assert await ask(prompt, [picture], stream=False) == await ask(prompt, [picture])


async def test_many_at_once(ask: Asker, source: Source) -> None:
    """More requests than rows, with and without images, some with different images and the same text."""
    words = source.render(["<image>", "What do you see?"])
    plain = source.render(["What do you see?"])
    pictures = [photo(80 + 60 * number, 120, seed=10 + number) for number in range(5)]
    cases = [(words, [picture]) for picture in pictures] + [(plain, [])] * 2 + [(words, [pictures[0]])]
    told = await asyncio.gather(
        *(ask(prompt, [encoded(one) for one in shown] or None, max_tokens=16) for prompt, shown in cases)
    )
    for (prompt, shown), answer in zip(cases, told, strict=True):
        assert answer == source.answer(prompt, shown, 16)


async def test_a_picture_is_not_taken_for_another_of_the_same_size(ask: Asker, source: Source) -> None:
    """The prompts have equal tokens, and the prefix cache must not take the one for the other."""
    prompt = source.render(["<image>", "Describe it at length. " * 8])
    first, second = photo(256, 128, seed=20), photo(256, 128, seed=21)
    expected = [source.answer(prompt, [first]), source.answer(prompt, [second])]
    assert expected[0].tokens != expected[1].tokens
    for _ in range(2):
        assert [await ask(prompt, [encoded(first)]), await ask(prompt, [encoded(second)])] == expected


async def test_a_prompt_of_token_ids(ask: Asker, source: Source) -> None:
    prompt, picture = source.render(["<image>", "What is this?"]), photo(200, 100, seed=5)
    ids = source.tokenizer(prompt, add_special_tokens=False)["input_ids"]
    assert await ask(ids, [encoded(picture)]) == source.answer(prompt, [picture])


async def test_options_go_with_pictures(ask: Asker, source: Source) -> None:
    prompt, shown = source.render(["<image>", "What is this?"]), photo(130, 100, seed=6)
    picture = encoded(shown)
    plain = await ask(prompt, [picture])
    fresh = await ask(prompt, [picture], repetition_penalty=3.0, presence_penalty=1.5)
    assert len(set(fresh.tokens)) == len(fresh.tokens) == 12 and fresh.num_input_tokens == plain.num_input_tokens
    told = await ask(prompt, [picture], prompt_logprobs=2)
    ids, _ = source.read(prompt, [shown])
    assert told.tokens == ids[0].tolist() + plain.tokens and told.text == plain.text


async def test_with_little_memory_pictures_are_read_again(
    built: Path, repository: Path, triton: EmbeddedTriton, load: Loader, engine: Engine, source: Source
) -> None:
    install_copy(built, repository, "cramped", kv_memory=1)  # about 2,000 tokens; four rows grow to 2,400
    await load("cramped")
    ask, prompt = Asker(triton.grpc_url, "cramped"), source.render(["<image>", "What do you see?"])
    pictures = [[encoded(photo(200, 150, seed=40 + number))] for number in range(6)]
    options: dict[str, Any] = {"max_tokens": 500, "ignore_eos": True}
    alone = [await ask(prompt, picture, **options) for picture in pictures]
    assert len({tuple(told.tokens) for told in alone}) == len(alone)
    assert (await engine.figures("cramped"))["preemptions_total"] == 0
    together = await asyncio.gather(*(ask(prompt, picture, **options) for picture in pictures))
    assert together == alone
    await engine.idle("cramped")
    figures = await engine.figures("cramped")
    assert figures["preemptions_total"] > 0 and figures["row_bytes"] == 0
    await load.unload("cramped")


async def test_a_model_that_cuts_no_picture(
    built: Path, checkpoint: Path, repository: Path, triton: EmbeddedTriton, load: Loader
) -> None:
    folder = install_copy(built, repository, "glancing")
    facts = json.loads((folder / "1" / "vision.json").read_bytes())
    (folder / "1" / "vision.json").unlink()  # it is a link
    (folder / "1" / "vision.json").write_text(json.dumps(facts | {"longest_edge": TILE}))
    await load("glancing")
    source = Source(checkpoint, Tokenizer.from_file(str(checkpoint / "tokenizer.json")), **WHOLE)
    ask, picture = Asker(triton.grpc_url, "glancing"), photo(300, 220, seed=7)
    prompt = source.render(["<image>", "What is this?"])
    told = await ask(prompt, [encoded(picture)])
    assert told == source.answer(prompt, [picture])
    assert told.num_input_tokens < 40
    await load.unload("glancing")
    shutil.rmtree(folder)


@pytest.mark.usefixtures("ask")
async def test_a_chat_over_http(gateway: RunningGateway, source: Source) -> None:
    await gateway.until("/v1/models/seeing", lambda response: response.status_code == 200)
    pictures = [photo(180, 120, seed=30), photo(90, 200, seed=31)]
    urls = [f"data:image/png;base64,{encoded(picture).decode()}" for picture in pictures]
    turns = [["<image>", "What is this?"], ["A dog."], ["And", "<image>", "this?"]]
    waiting = iter(urls)
    messages = [
        {
            "role": "assistant" if number % 2 else "user",
            "content": [
                {"type": "image_url", "image_url": {"url": next(waiting)}}
                if part == "<image>"
                else {"type": "text", "text": part}
                for part in turn
            ],
        }
        for number, turn in enumerate(turns)
    ]
    body = {"model": "seeing", "messages": messages, "temperature": 0, "max_tokens": 12}
    answer = (await gateway.http.post("/v1/chat/completions", json=body)).json()
    expected = source.answer(source.render(*turns), pictures)
    assert answer["choices"][0]["message"]["content"] == expected.text
    assert answer["usage"]["prompt_tokens"] == expected.num_input_tokens
    assert answer["choices"][0]["finish_reason"] == expected.finish_reason
    twins = (await gateway.http.post("/v1/chat/completions", json=body | {"n": 2})).json()["choices"]
    assert [twin["message"]["content"] for twin in twins] == [expected.text] * 2


@pytest.mark.parametrize(
    ("marks", "pictures", "message"),
    [
        (1, 0, "[invalid_value:text_input] The prompt has 1 of the marks <image>, each of which stands for a picture"),
        (1, 2, "[invalid_value:image] The prompt has 1 of the marks <image>, and the request has 2 pictures"),
        (0, 1, "[invalid_value:image] The prompt has 0 of the marks <image>, and the request has 1 pictures"),
        (12, 12, "[context_length_exceeded:text_input]"),
    ],
)
async def test_refusals(ask: Asker, marks: int, pictures: int, message: str) -> None:
    picture = encoded(photo(64, 64, seed=8))
    with pytest.raises(RuntimeError) as refusal:
        await ask("<image>" * marks + "What is this?", [picture] * pictures)
    assert message in str(refusal.value)


async def test_what_is_no_picture_is_refused(ask: Asker) -> None:
    with pytest.raises(RuntimeError, match=r"\[invalid_value:image\] Picture 2 is not base64\."):
        await ask("<image><image>", [encoded(photo(64, 64, seed=8)), b"!"])
    with pytest.raises(RuntimeError, match=r"\[invalid_value:image\] Picture 1 is none of PNG"):
        await ask("<image>", [b"bm90IGEgcGljdHVyZQ=="])
