"""Requests to a gateway under test, by its URL."""

import base64
import json
import uuid
from collections.abc import Iterable
from typing import Any

import httpx

from tests.containers.engine import wait_until

TASKS = 40
_CHAT = {"model": "smollm2-135m-instruct", "messages": [{"role": "user", "content": "Say hello."}], "temperature": 0}


def post(url: str, path: str, body: dict[str, Any], **headers: str) -> Any:
    answer = httpx.post(f"{url}{path}", json=body, timeout=120, trust_env=False, headers=headers)
    assert answer.status_code == 200, answer.text
    return answer.json()


def chat(url: str) -> str:
    return str(post(url, "/v1/chat/completions", _CHAT | {"max_tokens": 8})["choices"][0]["message"]["content"])


def stream_chat(url: str, max_tokens: int = 8) -> list[str]:
    """Return the data of the events of a streamed chat: JSON, and `[DONE]` at the end."""
    body = _CHAT | {"max_tokens": max_tokens, "stream": True}
    with httpx.stream("POST", f"{url}/v1/chat/completions", json=body, timeout=120, trust_env=False) as answer:
        answer.raise_for_status()
        return [line.removeprefix("data: ") for line in answer.iter_lines() if line.startswith("data: ")]


def outcome_of_stream(url: str, max_tokens: int = 24) -> str:
    """What a client sees of one streamed chat: it is `whole`, ends with an `error` event, is `refused`, or `cut`.

    A status other than 200 is returned as it is.
    """
    try:
        *chunks, last = stream_chat(url, max_tokens)
    except httpx.ConnectError:
        return "refused"
    except httpx.HTTPStatusError as error:
        return str(error.response.status_code)
    except (httpx.TransportError, ValueError):
        return "cut"
    if any('"error"' in chunk for chunk in (*chunks, last)):
        return "error"
    return "whole" if last == "[DONE]" else "cut"


def check_everything_is_served(url: str) -> None:
    """A chat, whole and streamed with the same text, embeddings, and an image."""
    text = chat(url)
    *chunks, last = stream_chat(url)
    assert last == "[DONE]"
    deltas = [choice["delta"].get("content") or "" for chunk in chunks for choice in json.loads(chunk)["choices"]]
    assert text.strip() and "".join(deltas) == text
    assert len(deltas) > 1  # tokens that arrive together share an event
    body: dict[str, Any] = {"model": "all-minilm-l6-v2", "input": ["a cat", "a dog"]}
    vectors = [each["embedding"] for each in post(url, "/v1/embeddings", body)["data"]]
    assert [len(vector) for vector in vectors] == [384, 384] and vectors[0] != vectors[1]
    body = {"model": "shapes", "prompt": "a red circle", "response_format": "b64_json"}
    image = post(url, "/v1/images/generations", body)["data"][0]["b64_json"]
    assert base64.b64decode(image).startswith(b"\x89PNG")


def submit_tasks(url: str) -> list[str]:
    """Submit `TASKS` image tasks, and return their ids."""
    ids = []
    prefix = uuid.uuid4()  # the view may hold tasks of an earlier run
    for number in range(TASKS):
        body = {"model": "shapes", "prompt": "a red circle", "n": 4, "async": True}
        task = post(url, "/tritonic/v1/images/generations", body, **{"Idempotency-Key": f"{prefix}-{number}"})
        ids.append(str(task["id"]))
    assert len(set(ids)) == TASKS
    return ids


def submit_tasks_that_run(url: str) -> list[str]:
    """Submit tasks, and return when the first runs and the last has not ended."""
    ids = submit_tasks(url)
    wait_until(lambda: "in_progress" in states(url, ids), 60, "no task runs")
    assert states(url, ids[-1:]) == ["queued"], "the tasks ended too early"
    return ids


def read_task(url: str, id: str) -> dict[str, Any]:
    answer = httpx.get(f"{url}/tritonic/v1/images/{id}?detail=true", timeout=30, trust_env=False)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def states(url: str, ids: Iterable[str]) -> list[str]:
    return [read_task(url, id)["status"] for id in ids]


def check_completed(url: str, ids: list[str]) -> None:
    """Wait for the end of tasks, and check that each has all its images."""
    final = {"completed", "failed", "cancelled"}
    wait_until(lambda: final.issuperset(states(url, ids)), 600, "the tasks do not end")
    for id in ids:
        task = read_task(url, id)
        assert task["status"] == "completed", task
        files = [each["url"] for each in task["detail"]["data"]]
        assert len(files) == 4
        assert httpx.get(files[0], timeout=30, trust_env=False).content.startswith(b"\x89PNG")
