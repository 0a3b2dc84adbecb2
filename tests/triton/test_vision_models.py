"""A tiny SmolVLM, built by the real builder: Triton gives the responses of transformers."""

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
from tests.triton.engine_metrics import EngineMetrics
from tests.triton.model_copies import install_copy
from tests.triton.vision_client import ReferenceModel, VisionClient, encoded, make_image
from tests.wire.gateway_server import RunningGateway
from tritonic.embedded import EmbeddedTriton

pytestmark = [pytest.mark.triton, pytest.mark.own_engine, pytest.mark.asyncio(loop_scope="session")]

WHOLE = {"size": {"longest_edge": TILE}}
"""A preprocessor configuration that splits no image into tiles."""


@pytest.fixture(scope="session")
def checkpoint(default_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    tokenizer = Tokenizer.from_file(str(default_folder / "1" / "tokenizer.json"))
    return make_checkpoint(tmp_path_factory.mktemp("checkpoints") / "vision", tokenizer)


@pytest.fixture(scope="session")
def built(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    wanted = recipe.make(name="vision", source=str(checkpoint), precision="fp32", max_rows=4)
    return build(wanted, tmp_path_factory.mktemp("built") / "repository").folder


@pytest.fixture(scope="session")
def reference(checkpoint: Path) -> ReferenceModel:
    return ReferenceModel(checkpoint, Tokenizer.from_file(str(checkpoint / "tokenizer.json")))


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def generate(built: Path, repository: Path, triton: EmbeddedTriton, load: Loader) -> VisionClient:
    install_copy(built, repository, "vision")
    await load("vision")
    return VisionClient(triton.grpc_url, "vision")


async def test_a_prompt_without_images(generate: VisionClient, reference: ReferenceModel) -> None:
    prompt = reference.render(["What is the capital of France?"])
    assert await generate(prompt) == reference.generate(prompt, [])


@pytest.mark.parametrize("size", [(200, 150), (64, 64), (37, 90), (1600, 500), (3, 900)])
async def test_one_image(generate: VisionClient, reference: ReferenceModel, size: tuple[int, int]) -> None:
    image = make_image(*size, seed=1)
    prompt = reference.render(["<image>", "What is this?"])
    assert await generate(prompt, [encoded(image)]) == reference.generate(prompt, [image])


async def test_two_images_in_two_turns(generate: VisionClient, reference: ReferenceModel) -> None:
    images = [make_image(320, 200, seed=2), make_image(100, 220, seed=3)]
    prompt = reference.render(["<image>", "What is this?"], ["A cat."], ["And", "<image>", "this?"])
    assert await generate(prompt, [encoded(image) for image in images]) == reference.generate(prompt, images)


async def test_a_streamed_response_equals_the_whole_one(generate: VisionClient, reference: ReferenceModel) -> None:
    prompt, image = reference.render(["<image>", "Well?"]), encoded(make_image(90, 90, seed=4))
    assert await generate(prompt, [image], stream=False) == await generate(prompt, [image])


async def test_more_requests_than_rows(generate: VisionClient, reference: ReferenceModel) -> None:
    """More requests than rows, with and without images, some with different images and the same text."""
    with_image = reference.render(["<image>", "What do you see?"])
    without_image = reference.render(["What do you see?"])
    images = [make_image(80 + 60 * number, 120, seed=10 + number) for number in range(5)]
    cases = [(with_image, [image]) for image in images] + [(without_image, [])] * 2 + [(with_image, [images[0]])]
    responses = await asyncio.gather(
        *(generate(prompt, [encoded(one) for one in shown] or None, max_tokens=16) for prompt, shown in cases)
    )
    for (prompt, shown), answer in zip(cases, responses, strict=True):
        assert answer == reference.generate(prompt, shown, 16)


async def test_the_prefix_cache_distinguishes_images_of_one_size(
    generate: VisionClient, reference: ReferenceModel
) -> None:
    """The prompts have equal tokens; the prefix cache must tell their images apart."""
    prompt = reference.render(["<image>", "Describe it at length. " * 8])
    first, second = make_image(256, 128, seed=20), make_image(256, 128, seed=21)
    expected = [reference.generate(prompt, [first]), reference.generate(prompt, [second])]
    assert expected[0].tokens != expected[1].tokens
    for _ in range(2):
        assert [await generate(prompt, [encoded(first)]), await generate(prompt, [encoded(second)])] == expected


async def test_a_prompt_of_token_ids(generate: VisionClient, reference: ReferenceModel) -> None:
    prompt, image = reference.render(["<image>", "What is this?"]), make_image(200, 100, seed=5)
    ids = reference.tokenizer(prompt, add_special_tokens=False)["input_ids"]
    assert await generate(ids, [encoded(image)]) == reference.generate(prompt, [image])


async def test_sampling_options_apply_to_prompts_with_images(generate: VisionClient, reference: ReferenceModel) -> None:
    prompt, shown = reference.render(["<image>", "What is this?"]), make_image(130, 100, seed=6)
    image = encoded(shown)
    without_image = await generate(prompt, [image])
    fresh = await generate(prompt, [image], repetition_penalty=3.0, presence_penalty=1.5)
    assert (
        len(set(fresh.tokens)) == len(fresh.tokens) == 12 and fresh.num_input_tokens == without_image.num_input_tokens
    )
    echoed = await generate(prompt, [image], prompt_logprobs=2)
    ids, _ = reference.tokenize(prompt, [shown])
    assert echoed.tokens == ids[0].tolist() + without_image.tokens and echoed.text == without_image.text


async def test_preempted_requests_read_their_images_again(
    built: Path,
    repository: Path,
    triton: EmbeddedTriton,
    load: Loader,
    engine: EngineMetrics,
    reference: ReferenceModel,
) -> None:
    install_copy(built, repository, "vision-small-cache", kv_memory=1)  # about 2,000 tokens; four rows grow to 2,400
    await load("vision-small-cache")
    generate, prompt = (
        VisionClient(triton.grpc_url, "vision-small-cache"),
        reference.render(["<image>", "What do you see?"]),
    )
    images = [[encoded(make_image(200, 150, seed=40 + number))] for number in range(6)]
    options: dict[str, Any] = {"max_tokens": 500, "ignore_eos": True}
    alone = [await generate(prompt, image, **options) for image in images]
    assert len({tuple(response.tokens) for response in alone}) == len(alone)
    assert (await engine.stats("vision-small-cache"))["preemptions_total"] == 0
    together = await asyncio.gather(*(generate(prompt, image, **options) for image in images))
    assert together == alone
    await engine.wait_idle("vision-small-cache")
    stats = await engine.stats("vision-small-cache")
    assert stats["preemptions_total"] > 0 and stats["row_bytes"] == 0
    await load.unload("vision-small-cache")


async def test_a_model_that_splits_no_image(
    built: Path, checkpoint: Path, repository: Path, triton: EmbeddedTriton, load: Loader
) -> None:
    folder = install_copy(built, repository, "untiled")
    config = json.loads((folder / "1" / "vision.json").read_bytes())
    (folder / "1" / "vision.json").unlink()  # it is a link
    (folder / "1" / "vision.json").write_text(json.dumps(config | {"longest_edge": TILE}))
    await load("untiled")
    reference = ReferenceModel(checkpoint, Tokenizer.from_file(str(checkpoint / "tokenizer.json")), **WHOLE)
    generate, image = VisionClient(triton.grpc_url, "untiled"), make_image(300, 220, seed=7)
    prompt = reference.render(["<image>", "What is this?"])
    response = await generate(prompt, [encoded(image)])
    assert response == reference.generate(prompt, [image])
    assert response.num_input_tokens < 40
    await load.unload("untiled")
    shutil.rmtree(folder)


@pytest.mark.usefixtures("generate")
async def test_a_chat_over_http(gateway: RunningGateway, reference: ReferenceModel) -> None:
    await gateway.until("/v1/models/vision", lambda response: response.status_code == 200)
    images = [make_image(180, 120, seed=30), make_image(90, 200, seed=31)]
    urls = [f"data:image/png;base64,{encoded(image).decode()}" for image in images]
    turns = [["<image>", "What is this?"], ["A dog."], ["And", "<image>", "this?"]]
    remaining_urls = iter(urls)
    messages = [
        {
            "role": "assistant" if number % 2 else "user",
            "content": [
                {"type": "image_url", "image_url": {"url": next(remaining_urls)}}
                if part == "<image>"
                else {"type": "text", "text": part}
                for part in turn
            ],
        }
        for number, turn in enumerate(turns)
    ]
    body = {"model": "vision", "messages": messages, "temperature": 0, "max_tokens": 12}
    answer = (await gateway.http.post("/v1/chat/completions", json=body)).json()
    expected = reference.generate(reference.render(*turns), images)
    assert answer["choices"][0]["message"]["content"] == expected.text
    assert answer["usage"]["prompt_tokens"] == expected.num_input_tokens
    assert answer["choices"][0]["finish_reason"] == expected.finish_reason
    twins = (await gateway.http.post("/v1/chat/completions", json=body | {"n": 2})).json()["choices"]
    assert [twin["message"]["content"] for twin in twins] == [expected.text] * 2


@pytest.mark.parametrize(
    ("placeholders", "images", "message"),
    [
        (
            1,
            0,
            "[invalid_value:text_input] The prompt has 1 of the placeholders <image>, and the request has no images",
        ),
        (1, 2, "[invalid_value:image] The prompt has 1 of the placeholders <image>, and the request has 2 images"),
        (0, 1, "[invalid_value:image] The prompt has 0 of the placeholders <image>, and the request has 1 images"),
        (12, 12, "[context_length_exceeded:text_input]"),
    ],
)
async def test_wrong_numbers_of_images_are_refused(
    generate: VisionClient, placeholders: int, images: int, message: str
) -> None:
    image = encoded(make_image(64, 64, seed=8))
    with pytest.raises(RuntimeError) as refusal:
        await generate("<image>" * placeholders + "What is this?", [image] * images)
    assert message in str(refusal.value)


async def test_invalid_images_are_refused(generate: VisionClient) -> None:
    with pytest.raises(RuntimeError, match=r"\[invalid_value:image\] Image 2 is not base64\."):
        await generate("<image><image>", [encoded(make_image(64, 64, seed=8)), b"!"])
    with pytest.raises(RuntimeError, match=r"\[invalid_value:image\] Image 1 is none of PNG"):
        await generate("<image>", [b"bm90IGEgcGljdHVyZQ=="])
