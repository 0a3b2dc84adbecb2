"""Tasks that an older version wrote to the database can be read and run."""

import json
import re
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from gateway.tasks.request_json import deserialize, serialize
from gateway.tasks.task import Task, TaskFailure, TaskOutput, owner_id
from tests.fakes.triton import FakeTriton
from tests.tasks.harness import OWNER, image_request, task_harness
from tests.wire.gateway_server import run_gateway

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
FILES = ("wxg4vx4jkjszneg2535bwwbptbsctaea.png", "mfxa6qjy2slftcvqnqwvolptlzgh7hnl.png")
RESULT = (
    f'{{"images":[{{"index":0,"file":"{FILES[0]}","seed":7,"content_type":"image/png"}},'
    f'{{"index":1,"file":"{FILES[1]}","seed":null,"content_type":"image/png"}}]}}'
)
"""The JSON of a result as version 0.1 writes it; the seed of its second image is not known."""


async def test_a_request_is_stored_under_the_names_of_older_versions(triton: FakeTriton, tmp_path: Path) -> None:
    request = image_request(n=2, seed=7, allow_resize=True)
    async with task_harness(triton.url, tmp_path) as home:
        assert await serialize(request, OWNER, home.files) == REQUEST
        assert await deserialize("generate_image", REQUEST, home.files) == request


def insert_old_row(
    path: Path, id: str, status: str, request: dict[str, Any], owner: str = OWNER, **columns: str
) -> None:
    """Insert a task column by column as version 0.1 did; `columns` are `output` and `error`, JSON in text."""
    ended = status in ("SUCCESS", "ERROR")
    row = {
        "workflow_uuid": id,
        "status": status,
        "name": "tritonic.task",
        "authenticated_user": owner,
        "executor_id": "vm-e8f6debe144c" if ended else None,
        "created_at": 1796038377000,
        "updated_at": 1796038379000,
        "application_version": "1",
        "queue_name": "tritonic-tasks",
        "queue_partition_key": request["model"],
        "serialization": "portable_json",
        "started_at_epoch_ms": 1796038379000 if ended else None,
        "completed_at": 1796038380000 if ended else None,
        "attributes": '{"progress": 0}',
        "application_name": "tritonic",
        "recovery_attempts": 1 if ended else 0,
    }
    inputs = {"namedArgs": {}, "positionalArgs": ["generate_image", request]}
    with closing(sqlite3.connect(path, timeout=10)) as connection, connection:
        marks = ", ".join("?" * len(row))
        connection.execute(f"INSERT INTO workflow_status ({', '.join(row)}) VALUES ({marks})", list(row.values()))
        connection.execute(
            "INSERT INTO workflow_input (workflow_uuid, inputs) VALUES (?, ?)",
            (id, json.dumps(inputs, separators=(",", ":"))),
        )
        if ended:
            connection.execute(
                "INSERT INTO workflow_output (workflow_uuid, output, error) VALUES (?, ?, ?)",
                (id, columns.get("output"), columns.get("error")),
            )


async def test_tasks_of_an_older_version_are_read_and_run(triton: FakeTriton, tmp_path: Path) -> None:
    path = tmp_path / "tasks.sqlite"
    async with task_harness(triton.url, tmp_path, f"sqlite:///{path}") as home:
        # DBOS creates and migrates the tables; the rows come from the gateway.
        await home.wait_finished((await home.tasks.submit(image_request(), OWNER)).id)
        done, failed, queued = ("task_" + letter * 32 for letter in "abc")
        insert_old_row(
            path,
            done,
            "SUCCESS",
            REQUEST,
            output=RESULT,
        )
        insert_old_row(
            path,
            failed,
            "ERROR",
            REQUEST | {"model": "broken"},
            error='{"name":"PortableWorkflowError","message":"The engine stopped.","code":"model_failed",'
            '"data":{"status":502,"param":null}}',
        )
        insert_old_row(path, queued, "ENQUEUED", REQUEST)

        assert (await home.tasks.get(done, OWNER)) == Task(
            id=done,
            kind="generate_image",
            model="painter",
            state="completed",
            progress=100,
            created=1796038377.0,
            started=1796038379.0,
            finished=1796038380.0,
            request=REQUEST,
            outputs=(
                TaskOutput(0, FILES[0], "image/png", {"seed": 7}),
                TaskOutput(1, FILES[1], "image/png", {"seed": None}),
            ),
        )
        assert (await home.tasks.get(failed, OWNER)).error == TaskFailure(502, "model_failed", "The engine stopped.")
        task = await home.wait_finished(queued)
        assert (task.state, [output.facts for output in task.outputs]) == ("completed", [{"seed": 7}, {"seed": 8}])
        assert task.request == REQUEST


async def test_the_platform_shows_a_task_of_an_older_version(triton: FakeTriton, tmp_path: Path) -> None:
    path = tmp_path / "tasks.sqlite"
    settings: dict[str, Any] = {"state": tmp_path, "tasks": f"sqlite:///{path}", "public_url": "https://api.example"}
    async with run_gateway(triton.url, **settings) as gateway:
        body = {"model": "painter", "prompt": "a red square", "n": 2, "async": True}
        this = (await gateway.http.post("/tritonic/v1/images/generations", json=body)).json()["id"]
        url = f"/tritonic/v1/images/{this}?detail=true"
        this = await gateway.until(url, lambda response: response.json()["status"] == "completed")
        older = "task_" + "a" * 32
        insert_old_row(path, older, "SUCCESS", REQUEST, owner=owner_id("tritonic "), output=RESULT)
        shown = (await gateway.http.get(f"/tritonic/v1/images/{older}?detail=true")).json()
    file = re.compile(r"https://api\.example/[^?]*/([^/?]+)\?.*")
    for image, name in zip(shown["detail"]["data"], FILES, strict=True):
        found = file.fullmatch(image["url"])
        assert found and found[1] == name
        image["url"] = name
    assert shown == {
        "id": older,
        "object": "image",
        "model": "painter",
        "status": "completed",
        "created_at": 1796038377,
        "detail": {
            "operation": "generate_image",
            "progress": 100,
            "started_at": 1796038379,
            "completed_at": 1796038380,
            "request": {"prompt": "a red square", "n": 2, "seed": 7, "output_format": "png"},
            "data": [{"url": FILES[0], "seed": 7}, {"url": FILES[1], "seed": None}],
            "error": None,
        },
    }
    newer = this.json()
    assert (newer.keys(), newer["detail"].keys()) == (shown.keys(), shown["detail"].keys())
    assert [image.keys() for image in newer["detail"]["data"]] == [{"url", "seed"}] * 2
