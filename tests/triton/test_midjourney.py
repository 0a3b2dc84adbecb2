"""A session of Midjourney tasks on the default image model in the real Triton, and which pixels stay."""

import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
from PIL import Image

from builders import manifest
from tests.triton.conftest import PATIENCE
from tests.triton.model_copies import build_default
from tests.wire.gateway_server import RunningGateway, run_gateway
from tests.wire.midjourney.requests import KEY, KEYS, button, data_url, finished, picture, post
from tritonic.embedded import EmbeddedTriton

pytestmark = [pytest.mark.triton, pytest.mark.asyncio(loop_scope="session")]

NAME = "shapes"
SIDE = 128


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def gateway(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[RunningGateway]:
    installed = build_default(NAME).parent
    repository = tmp_path_factory.mktemp("pictures")
    for name in (NAME, *manifest.part_names(installed / NAME)):
        shutil.copytree(installed / name, repository / name)
    state: Path = tmp_path_factory.mktemp("state")
    with EmbeddedTriton(repository) as triton:
        async with run_gateway(triton.grpc_url, triton_secret=triton.secret, state=state, **KEYS) as running:
            running.http.timeout = httpx.Timeout(PATIENCE)
            yield running


async def press(gateway: RunningGateway, task: dict[str, Any], label: str, **modal: str) -> dict[str, Any]:
    """Press a button, fill in its window if it has one, and return the finished task with its picture in RGB."""
    result = await post(gateway, "/mj/submit/action", {"taskId": task["id"], "customId": button(task, label)})
    if modal:
        assert result["code"] == 21
        result = await post(gateway, "/mj/submit/modal", {"taskId": result["result"], **modal})
    assert result["code"] == 1, result
    done = await finished(gateway, result["result"])
    return {**done, "picture": (await picture(gateway, done["imageUrl"])).convert("RGB")}


def quarters(grid: Image.Image) -> list[Image.Image]:
    corners = [(left, top) for top in (0, SIDE) for left in (0, SIDE)]
    return [grid.crop((left, top, left + SIDE, top + SIDE)) for left, top in corners]


async def test_a_session_keeps_the_pixels_that_it_must(gateway: RunningGateway) -> None:
    prompt = "a large red circle on a blue background --seed 7 --no green"
    result = await post(gateway, "/mj-turbo/mj/submit/imagine", {"prompt": prompt})
    grid = await finished(gateway, result["result"])
    drawn = (await picture(gateway, grid["imageUrl"])).convert("RGB")
    kept = await press(gateway, grid, "U3")
    one: Image.Image = kept["picture"]
    assert one.tobytes() == quarters(drawn)[2].tobytes()
    red, _, blue = one.getpixel((SIDE // 2, SIDE // 2))  # type: ignore[misc]
    assert red > 150 > blue, "the circle is not red"
    panned = await press(gateway, kept, "➡️")
    half = SIDE // 2
    for moved in quarters(panned["picture"]):
        assert moved.crop((0, 0, half, SIDE)).tobytes() == one.crop((half, 0, SIDE, SIDE)).tobytes()
    white = data_url("white", (32, SIDE))
    changed = await press(gateway, kept, "Vary (Region)", prompt="a green square", maskBase64=white)
    assert all(each.tobytes() != one.tobytes() for each in quarters(changed["picture"]))
    zoomed = await press(gateway, kept, "Zoom Out 2x")
    small = one.resize((half, half), Image.Resampling.LANCZOS)
    box = (half // 2, half // 2, half // 2 + half, half // 2 + half)
    assert all(each.crop(box).tobytes() == small.tobytes() for each in quarters(zoomed["picture"]))
    seed = (await gateway.http.get(f"/mj/task/{kept['id']}/image-seed", headers=KEY)).json()["result"]
    again = await post(
        gateway,
        "/mj-turbo/mj/submit/imagine",
        {"prompt": f"a large red circle on a blue background --seed {seed} --no green"},
    )
    repeated = await finished(gateway, again["result"])
    first = quarters((await picture(gateway, repeated["imageUrl"])).convert("RGB"))[0]
    assert first.tobytes() == one.tobytes(), "the seed of a picture does not draw it again"
