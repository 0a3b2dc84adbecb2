"""Grammars, biases and log probabilities with the real model."""

import asyncio
import json
import time
from typing import Any

import jsonschema
import psutil
import pytest

from tests.triton.text_client import Body, TextClient, chat, path, prompt
from tests.unit.llm.json_schema.corpus import PYDANTIC
from tests.unit.llm.json_schema.keywords import KEYWORDS
from tests.unit.llm.json_schema.library_schemas import OPENAPI, ZOD

pytestmark = [pytest.mark.triton, pytest.mark.asyncio(loop_scope="session")]

PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 12},
        "age": {"type": "integer", "minimum": 0, "maximum": 120},
    },
    "required": ["name", "age"],
    "additionalProperties": False,
}
SCHEMAS = [
    PERSON,
    {"type": "array", "items": PERSON, "minItems": 1, "maxItems": 2},
    {"enum": ["red", 2, None, "café"]},
    {"type": "string", "pattern": "^[A-Z]{3}-[0-9]{4}$"},
    {"anyOf": [{"type": "string", "format": "date"}, {"type": "boolean"}]},
]
BEGINNING = "The door of the old house opened, and"


async def choice(complete: TextClient, body: Body) -> dict[str, Any]:
    response = await complete.gateway.http.post(path(body), json=body)
    assert response.status_code == 200, response.text
    (only,) = response.json()["choices"]
    return only


@pytest.mark.parametrize("temperature", [0, 1])
async def test_completions_follow_their_schema(complete: TextClient, temperature: int) -> None:
    bodies = [
        chat(question, structured_outputs={"json": schema}, temperature=temperature, seed=seed, max_tokens=300)
        for seed, question in enumerate(["Who are you?", 'Say "no" to {me} in 東京.'])
        for schema in SCHEMAS
    ]
    for body, completion in zip(bodies, await asyncio.gather(*map(complete, bodies)), strict=True):
        assert completion.finish_reason == "stop"
        jsonschema.validate(json.loads(completion.text), body["structured_outputs"]["json"])


LIBRARY_SCHEMAS = {
    "pydantic": PYDANTIC["Bird"],
    "a union of pydantic": PYDANTIC["Owner"]["$defs"]["Cat"] | {"additionalProperties": {"type": "boolean"}},
    "zod": ZOD["zod 4 union"],
    "inheritance": OPENAPI["inheritance"],
    "told apart": OPENAPI["branches told apart by what they require"],
    "names that are constants": KEYWORDS["names that are constants"],
    "unique": KEYWORDS["unique"],
}
UNLIMITED = "a union of pydantic"
"""The schema whose strings have no limit. Only the engine's own draws end them within the tokens of the test."""
TESTED_AS_ARGUMENTS = {"told apart", "names that are constants", "pydantic", "inheritance"}


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.own_engine] if name == UNLIMITED else []) for name in LIBRARY_SCHEMAS],
)
async def test_schemas_of_libraries_are_followed(complete: TextClient, name: str) -> None:
    """Each way to request a schema gives a valid document."""
    schema = LIBRARY_SCHEMAS[name]
    named = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema, "strict": False}}
    more = {"temperature": 1, "seed": 3, "max_tokens": 400}
    bodies = [
        chat("Tell me of a pet.", response_format=named, **more),
        chat("Tell me of a pet.", structured_outputs={"json": schema}, **more),
    ]
    texts = [completion.text for completion in await asyncio.gather(*map(complete, bodies))]
    if name in TESTED_AS_ARGUMENTS:
        tool = {"type": "function", "function": {"name": "tell", "parameters": schema}}
        for demanded in ("required", {"type": "function", "function": {"name": "tell"}}):
            request = {"tools": [tool], "tool_choice": demanded, "parallel_tool_calls": False}
            only = await choice(complete, chat("Tell me of a pet.", **request, **more))
            texts += [call["function"]["arguments"] for call in only["message"]["tool_calls"]]
        assert len(texts) == 4
    for text in texts:
        jsonschema.Draft202012Validator(schema).validate(json.loads(text))


async def test_a_completion_does_not_depend_on_the_other_rows_of_the_batch(complete: TextClient) -> None:
    free = prompt(BEGINNING, max_tokens=32)
    drawn = chat("Who are you?", structured_outputs={"json": PERSON}, temperature=1, seed=4, max_tokens=100)
    with_logprobs = prompt(BEGINNING, max_tokens=32, logprobs=5)
    alone = [await complete(free), await complete(drawn)]
    biased = prompt(BEGINNING, max_tokens=32, logit_bias={"28": 100})
    together = await asyncio.gather(*map(complete, [free, drawn, with_logprobs, biased, drawn, free]))
    assert [together[place] for place in (0, 5, 2)] == [alone[0]] * 3
    assert together[1] == together[4] == alone[1]
    assert len(set(together[3].text)) == 1


async def test_a_schema_that_cannot_be_enforced_is_refused_with_the_reason(complete: TextClient) -> None:
    body = chat("Hello", structured_outputs={"json": {"items": {"not": {"pattern": "a"}}}})
    response = await complete.gateway.http.post(path(body), json=body)
    assert response.status_code == 400
    assert "'not' at '#/items' can be enforced only" in response.json()["error"]["message"]


async def test_the_bytes_of_the_tokens_join_to_the_content(complete: TextClient) -> None:
    structure = {"regex": "(東|京|é|🙂){6}"}
    only = await choice(
        complete, chat("Go on.", structured_outputs=structure, logprobs=True, top_logprobs=3, temperature=1, seed=2)
    )
    entries = only["logprobs"]["content"]
    content = only["message"]["content"]
    assert len(content) == 6 and b"".join(bytes(entry["bytes"]) for entry in entries) == content.encode()
    assert len(entries) > 6  # tokens end inside characters
    for entry in entries:
        assert entry["logprob"] <= 0 and len(entry["top_logprobs"]) == 3


async def test_min_tokens_delays_the_stop(complete: TextClient) -> None:
    usual, longer = await asyncio.gather(
        complete(chat("Say yes.", stop=["e"])), complete(chat("Say yes.", stop=["e"], min_tokens=20, max_tokens=60))
    )
    assert usual.usage["completion_tokens"] < 20 <= longer.usage["completion_tokens"]


def hostile(kind: str, number: int) -> dict[str, Any]:
    """Return a structure that is in no cache."""
    if kind == "powers":
        return {"regex": f"((a{{1000}}){{1000}}){{{7 + number}}}"}
    if kind == "multiples":
        return {"json": {"type": "integer", "multipleOf": 999_983 + 2 * number}}
    return {"json": {"type": "object", "properties": {f"f{number}_{i}": {"type": "string"} for i in range(5000)}}}


def resident() -> int:
    """Return the resident bytes of the model's process, which is the largest of Triton's stubs."""
    processes = psutil.Process().children(recursive=True)
    return max(one.memory_info().rss for one in processes if "stub" in one.name())


@pytest.mark.parametrize("kind", ["powers", "multiples", "members"])
async def test_hostile_structures_are_refused_and_others_do_not_wait(complete: TextClient, kind: str) -> None:
    async def attack(number: int) -> None:
        body = chat("Go on.", structured_outputs=hostile(kind, number), max_tokens=5)
        response = await complete.gateway.http.post(path(body), json=body)
        assert response.status_code in (400, 503), response.text
        if response.status_code == 400:
            assert "more than 1 s or 128 MB to compile" in response.json()["error"]["message"]

    await complete(chat("Who are you?", structured_outputs={"json": PERSON}, max_tokens=100))
    before = resident()
    attackers = [asyncio.create_task(attack(number)) for number in range(4)]
    latencies: list[float] = []
    while not all(task.done() for task in attackers):
        schema = PERSON | {"title": f"{kind} {len(latencies)}"}
        begun = time.monotonic()
        completion = await complete(chat("Who are you?", structured_outputs={"json": schema}, max_tokens=100))
        latencies.append(time.monotonic() - begun)
        jsonschema.validate(json.loads(completion.text), PERSON)
    await asyncio.gather(*attackers)
    assert sorted(latencies)[len(latencies) // 2] < 10, latencies  # a second or two, where nothing else runs
    assert resident() - before < 64 * 2**20
