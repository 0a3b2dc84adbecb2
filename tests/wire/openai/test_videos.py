"""Videos of the OpenAI dialect, on a scripted model: requests, states, files, deletions."""

import asyncio
import io
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from PIL import Image

from gateway.dialects.openai import videos_responses
from tests.fakes.image_model import color_of_seed
from tests.fakes.triton import FakeTriton
from tests.fakes.video_model import video_file
from tests.wire.gateway_server import RunningGateway
from tests.wire.openai.conformance import validate_exactly
from tests.wire.openai.image_requests import encoded_image
from tests.wire.openai.text_requests import check_error
from tests.wire.openai.video_requests import (
    KEY,
    OTHER_KEY,
    PATH,
    create,
    download,
    finished,
    frames,
    pixel,
    post,
    run_filming,
)

pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def running(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[tuple[FakeTriton, RunningGateway]]:
    async with run_filming(tmp_path_factory.mktemp("state")) as both:
        yield both


@pytest.fixture
def filming(running: tuple[FakeTriton, RunningGateway]) -> FakeTriton:
    return running[0]


@pytest.fixture
def gateway(running: tuple[FakeTriton, RunningGateway]) -> RunningGateway:
    return running[1]


async def test_a_video_is_generated(gateway: RunningGateway, filming: FakeTriton) -> None:
    body: dict[str, Any] = {
        "model": "film",
        "seconds": "1",
        "size": "96x64",
        "seed": 5,
        "negative_prompt": "grey",
        "steps": 3,
        "fps": 4,
    }
    queued = await create(gateway, **body, guidance_scale=2.5, quality=80)
    assert queued["status"] in ("queued", "in_progress") and queued["completed_at"] is None
    done = await finished(gateway, queued)
    assert (done["status"], done["progress"], done["error"]) == ("completed", 100, None), done
    assert (done["seconds"], done["size"], done["fps"], done["seed"], done["model"]) == ("1", "96x64", 4, 5, "film")
    assert done["expires_at"] - done["completed_at"] == 604_800 and done["prompt"] == "a red circle"
    sent = {name: values[0] for name, values in filming.calls[-1].tensors.items()}
    assert (sent["num_frames"], sent["fps"], sent["steps"], sent["quality"], sent["seed"]) == (4, 4, 3, 80, 5)
    assert (sent["guidance_scale"], sent["negative_prompt"]) == (2.5, b"grey")
    file = await download(gateway, done)
    assert (file.status_code, file.headers["content-type"]) == (200, "video/mp4")
    pictures = frames(file.content)
    assert len(pictures) == 4 and pictures[0].size == (96, 64)
    assert max(abs(a - b) for a, b in zip(pixel(pictures[0], 90, 32), color_of_seed(5), strict=True)) < 12


async def test_defaults_are_those_of_the_model(gateway: RunningGateway) -> None:
    video = await create(gateway)
    assert (video["model"], video["seconds"], video["size"], video["fps"]) == ("film", "2.125", "64x64", 8)
    done = await finished(gateway, video)
    assert len(frames((await download(gateway, done)).content)) == 17 and done["seed"] is not None
    assert (await create(gateway, seconds=0.00001))["seconds"] == "0.00001"  # not 1e-05


async def test_a_form_with_a_picture(gateway: RunningGateway, filming: FakeTriton) -> None:
    picture = encoded_image(size=(200, 100), colour=(250, 20, 20))
    files = {"input_reference": ("a.png", picture, "image/png")}
    video = await create(gateway, files=files, seconds="0.5", size="64x64", seed="3")
    done = await finished(gateway, video)
    assert done["seconds"] == "0.5" and done["status"] == "completed"
    call = filming.calls[-1]
    (sent,) = call.tensors["image"]
    with Image.open(io.BytesIO(sent)) as first:
        assert (first.format, first.size, pixel(first, 32, 32)) == ("PNG", (64, 64), (250, 20, 20))
    assert call.tensors["num_frames"] == [4] and call.tensors["seed"] == [3]


async def test_a_form_with_a_video(gateway: RunningGateway, filming: FakeTriton) -> None:
    """A video of 24 frames a second and another size becomes frames at 8 a second, cropped at the centre."""
    source = video_file((160, 80), 24, 24, seed=2, container="webm", codec="libvpx-vp9")
    files = {"input_reference": ("a.webm", source, "video/webm")}
    done = await finished(gateway, await create(gateway, files=files, strength="0.5", seed="9"))
    assert done["error"] is None
    assert (done["status"], done["seconds"], done["size"]) == ("completed", "1", "64x64"), done
    call = filming.calls[-1]
    assert call.tensors["num_frames"] == [8] and call.tensors["strength"] == [0.5] and "image" not in call.tensors
    pictures = [Image.open(io.BytesIO(data)) for data in call.tensors["frames"]]
    assert [(picture.format, picture.size) for picture in pictures] == [("JPEG", (64, 64))] * 8
    # The bar of the source moves: two frames differ.
    assert pictures[3].tobytes() != pictures[4].tobytes() and pictures[6].tobytes() != pictures[7].tobytes()


@pytest.mark.parametrize(("num_frames", "tensor"), [(1, "image"), (9, "frames")])
async def test_a_gif_is_a_picture_or_a_video(
    gateway: RunningGateway, filming: FakeTriton, num_frames: int, tensor: str
) -> None:
    gif = video_file((64, 64), num_frames, 8, container="gif", codec="gif")
    done = await finished(gateway, await create(gateway, files={"input_reference": ("a.gif", gif, "image/gif")}))
    assert done["status"] == "completed", done
    assert {"image", "frames"} & filming.calls[-1].tensors.keys() == {tensor}


async def test_a_stored_video_by_its_url(gateway: RunningGateway, filming: FakeTriton) -> None:
    """The gateway reads a file of its own from the store: it may not connect to its own address."""
    body = {"model": "film", "messages": [{"role": "user", "content": "a red circle"}]}
    answer = (await gateway.http.post("/v1/chat/completions", json=body, headers=KEY)).json()
    url = answer["choices"][0]["message"]["content"].removeprefix("[video](").removesuffix(")")
    done = await finished(gateway, await create(gateway, input_reference=url, strength=0.3))
    assert done["status"] == "completed" and len(filming.calls[-1].tensors["frames"]) == 17
    gone = url.replace("/files/", "/files/a")
    response = await post(gateway, json={"prompt": "x", "input_reference": gone})
    check_error(response, 400, param="input_reference")


async def test_a_remix_changes_a_video(gateway: RunningGateway, filming: FakeTriton) -> None:
    source = await finished(gateway, await create(gateway, seconds="1", size="96x64", seed=4, steps=7))
    video = await create(gateway, f"{PATH}/{source['id']}/remix", prompt="a blue circle")
    done = await finished(gateway, video)
    assert (done["remixed_from_video_id"], done["prompt"]) == (source["id"], "a blue circle")
    assert (done["status"], done["seconds"], done["size"]) == ("completed", "1", "96x64"), done
    call = filming.calls[-1]
    assert len(call.tensors["frames"]) == 8 and call.tensors["steps"] == [7] and "strength" not in call.tensors
    with Image.open(io.BytesIO(call.tensors["frames"][0])) as first:
        shown, colour = pixel(first, 90, 32), color_of_seed(4)
        assert first.size == (96, 64) and max(abs(a - b) for a, b in zip(shown, colour, strict=True)) < 12


async def test_edits_and_extensions(gateway: RunningGateway, filming: FakeTriton) -> None:
    source = await finished(gateway, await create(gateway, seconds=1, seed=4))
    by_id = await create(gateway, f"{PATH}/edits", prompt="blue", video={"id": source["id"]}, strength=0.4)
    assert (await finished(gateway, by_id))["remixed_from_video_id"] == source["id"]
    assert filming.calls[-1].tensors["strength"] == [pytest.approx(0.4)]
    files = {"video": ("a.mp4", video_file((64, 64), 12, 8), "video/mp4")}
    by_file = await finished(gateway, await create(gateway, f"{PATH}/edits", files=files, prompt="blue"))
    assert (by_file["status"], by_file["remixed_from_video_id"]) == ("completed", None)
    assert len(filming.calls[-1].tensors["frames"]) == 12
    longer = await create(gateway, f"{PATH}/extensions", prompt="on", seconds="2", video={"id": source["id"]})
    assert (await finished(gateway, longer))["seconds"] == "2"
    with Image.open(io.BytesIO(filming.calls[-1].tensors["image"][0])) as first:
        assert max(pixel(first, 62, 32)) > 240  # the bar has arrived at the right
    nested = {"video[id]": source["id"], "seconds": "2", "prompt": "on"}
    response = await post(gateway, f"{PATH}/extensions", data=nested, files={"unknown": b""})
    assert response.status_code == 200, response.text


async def test_a_model_that_needs_a_picture(gateway: RunningGateway, filming: FakeTriton) -> None:
    files = {"input_reference": ("a.png", encoded_image(size=(64, 64)), "image/png")}
    done = await finished(gateway, await create(gateway, files=files, model="film-picture"))
    assert done["status"] == "completed" and "image" in filming.calls[-1].tensors


async def test_a_remix_by_another_model_keeps_the_size_and_the_length(
    gateway: RunningGateway, filming: FakeTriton
) -> None:
    options: dict[str, Any] = {"steps": 7, "guidance_scale": 2.5, "negative_prompt": "grey", "quality": 80}
    source = await finished(gateway, await create(gateway, seconds="1", size="96x64", **options))
    path = f"{PATH}/{source['id']}/remix"
    done = await finished(gateway, await create(gateway, path, prompt="blue", model="film-quick"))
    assert (done["status"], done["seconds"], done["size"]) == ("completed", "1", "96x64")
    assert not options.keys() & filming.calls[-1].tensors.keys()


async def test_a_download_in_parts(gateway: RunningGateway) -> None:
    done = await finished(gateway, await create(gateway))
    whole = await download(gateway, done)
    assert whole.headers["accept-ranges"] == "bytes" and done["id"] in whole.headers["content-disposition"]
    path = f"{PATH}/{done['id']}/content"
    part = await gateway.http.get(path, headers={**KEY, "Range": "bytes=10-19"})
    assert (part.status_code, part.content) == (206, whole.content[10:20])
    assert part.headers["content-range"] == f"bytes 10-19/{len(whole.content)}"
    head = await gateway.http.head(path, headers=KEY)
    assert (head.status_code, head.headers["content-length"], head.content) == (200, str(len(whole.content)), b"")
    known = await gateway.http.get(path, headers={**KEY, "If-None-Match": whole.headers["etag"]})
    assert (known.status_code, known.content) == (304, b"")
    assert (await gateway.http.get(path, headers={**KEY, "Range": "bytes=99999999-"})).status_code == 416
    check_error(await gateway.http.get(path), 401, "authentication_error")


@pytest.mark.parametrize(
    ("variant", "content_type", "size"),
    [("thumbnail", "image/webp", (96, 64)), ("spritesheet", "image/jpeg", (384, 256))],
)
async def test_previews(gateway: RunningGateway, variant: str, content_type: str, size: tuple[int, int]) -> None:
    done = await finished(gateway, await create(gateway, size="96x64", seed=6))
    first = await download(gateway, done, variant=variant)
    assert (first.status_code, first.headers["content-type"]) == (200, content_type), first.text
    with Image.open(io.BytesIO(first.content)) as picture:
        assert picture.size == size
        assert max(abs(a - b) for a, b in zip(pixel(picture, 60, 30), color_of_seed(6), strict=True)) < 16
    again = await download(gateway, done, variant=variant)
    assert again.content == first.content and again.headers["etag"] == first.headers["etag"]  # it is stored
    check_error(await download(gateway, done, variant="gif"), 400, param="variant")


async def test_a_listing_in_pages(gateway: RunningGateway) -> None:
    made = [(await finished(gateway, await create(gateway, seconds="0.5")))["id"] for _ in range(3)]
    page = await gateway.http.get(PATH, params={"limit": 2}, headers=KEY)
    validate_exactly(videos_responses.ListVideosResponse, page.content)
    listed = page.json()
    assert [video["id"] for video in listed["data"]] == made[:0:-1] and listed["has_more"]
    after = {"limit": 1, "after": listed["last_id"]}
    assert [video["id"] for video in (await gateway.http.get(PATH, params=after, headers=KEY)).json()["data"]] == made[
        :1
    ]
    oldest = (await gateway.http.get(PATH, params={"order": "asc", "limit": 100}, headers=KEY)).json()["data"]
    newest = (await gateway.http.get(PATH, params={"limit": 100}, headers=KEY)).json()["data"]
    assert [video["id"] for video in oldest] == [video["id"] for video in newest][::-1]
    following = {"order": "asc", "after": made[0], "limit": 2}
    assert [v["id"] for v in (await gateway.http.get(PATH, params=following, headers=KEY)).json()["data"]] == made[1:]
    assert (await gateway.http.get(PATH, headers=OTHER_KEY)).json()["data"] == []


async def test_a_deletion_removes_the_files(gateway: RunningGateway) -> None:
    done = await finished(gateway, await create(gateway))
    assert (await download(gateway, done, variant="thumbnail")).status_code == 200
    path = f"{PATH}/{done['id']}"
    check_error(await gateway.http.delete(path, headers=OTHER_KEY), 404, code="task_not_found")
    deleted = await gateway.http.delete(path, headers=KEY)
    validate_exactly(videos_responses.DeleteVideoResponse, deleted.content)
    for gone in (path, f"{path}/content", f"{path}/content?variant=thumbnail"):
        check_error(await gateway.http.get(gone, headers=KEY), 404, code="task_not_found")
    check_error(await gateway.http.delete(path, headers=KEY), 404, code="task_not_found")


async def test_a_deletion_cancels(gateway: RunningGateway, filming: FakeTriton) -> None:
    video = await create(gateway, model="film-slow")
    async with asyncio.timeout(30):
        while not filming.calls or filming.calls[-1].model != "film-slow":
            await asyncio.sleep(0.02)
    call = filming.calls[-1]
    assert (await gateway.http.delete(f"{PATH}/{video['id']}", headers=KEY)).status_code == 200
    async with asyncio.timeout(10):
        await call.ended.wait()
    assert call.cancelled_at is not None


async def test_an_idempotency_key_names_one_video(gateway: RunningGateway) -> None:
    headers = {**KEY, "Idempotency-Key": "one"}
    bodies = [{"prompt": "a red circle"}, {"prompt": "a red circle"}, {"prompt": "a blue circle"}]
    first, second, other = [await post(gateway, json=body, headers=headers) for body in bodies]
    assert first.json()["id"] == second.json()["id"]
    check_error(other, 400, param="idempotency_key")


async def test_an_alias_takes_sizes_of_another_model(gateway: RunningGateway) -> None:
    video = await create(gateway, model="sora-2", size="1024x1792", seconds="4")
    assert (video["model"], video["size"], video["seconds"]) == ("sora-2", "64x64", "4")
    assert (await finished(gateway, video))["status"] == "completed"


async def test_videos_that_fail(gateway: RunningGateway) -> None:
    failed = await finished(gateway, await create(gateway, model="film-broken"))
    assert (failed["status"], failed["error"]["code"], failed["completed_at"]) == ("failed", "model_failed", None)
    garbled = await finished(gateway, await create(gateway, model="film-garbled"))
    assert "not an MP4" in garbled["error"]["message"]
    check_error(await download(gateway, failed), 400, code="not_ready")
    remix = await post(gateway, f"{PATH}/{failed['id']}/remix", json={"prompt": "blue"})
    check_error(remix, 400, code="not_ready")
