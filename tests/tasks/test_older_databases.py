"""Tasks that older versions wrote to a database are read, done and shown like those of this version."""

from pathlib import Path
from typing import Any

from gateway.tasks.request_json import deserialize, serialize
from tests.fakes.triton import FakeTriton
from tests.tasks.harness import OWNER, image_request, task_harness

REQUEST: dict[str, Any] = {
    "model": "painter",
    "prompt": "a red square",
    "negative_prompt": None,
    "n": 2,
    "width": None,
    "height": None,
    "scaled": True,
    "steps": None,
    "effort": "medium",
    "guidance_scale": None,
    "seed": 7,
    "output_format": "png",
    "quality": None,
    "partial_images": 0,
}
"""The JSON of a request as version 0.1 writes it."""


async def test_a_request_is_stored_under_the_names_of_older_versions(triton: FakeTriton, tmp_path: Path) -> None:
    request = image_request(n=2, seed=7, allow_resize=True)
    async with task_harness(triton.url, tmp_path) as home:
        assert await serialize(request, OWNER, home.files) == REQUEST
        assert await deserialize("generate_image", REQUEST, home.files) == request
