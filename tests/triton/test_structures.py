"""Grammars, biases and log probabilities with the real model: what a client relies on."""

import asyncio
import json
from typing import Any

import jsonschema
import pytest

from tests.triton.asking import Ask, Body, chat, path, prompt

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


async def choice(ask: Ask, body: Body) -> dict[str, Any]:
    response = await ask.gateway.http.post(path(body), json=body)
    assert response.status_code == 200, response.text
    (only,) = response.json()["choices"]
    return only


@pytest.mark.parametrize("temperature", [0, 1])
async def test_answers_follow_their_schema(ask: Ask, temperature: int) -> None:
    bodies = [
        chat(question, structured_outputs={"json": schema}, temperature=temperature, seed=seed, max_tokens=300)
        for seed, question in enumerate(["Who are you?", 'Say "no" to {me} in 東京.'])
        for schema in SCHEMAS
    ]
    for body, said in zip(bodies, await asyncio.gather(*map(ask, bodies)), strict=True):
        assert said.reason == "stop"
        jsonschema.validate(json.loads(said.text), body["structured_outputs"]["json"])


async def test_a_row_says_the_same_whatever_stands_beside_it(ask: Ask) -> None:
    free = prompt(BEGINNING, max_tokens=32)
    drawn = chat("Who are you?", structured_outputs={"json": PERSON}, temperature=1, seed=4, max_tokens=100)
    told = prompt(BEGINNING, max_tokens=32, logprobs=5)
    alone = [await ask(free), await ask(drawn)]
    biased = prompt(BEGINNING, max_tokens=32, logit_bias={"28": 100})
    together = await asyncio.gather(*map(ask, [free, drawn, told, biased, drawn, free]))
    assert [together[place] for place in (0, 5, 2)] == [alone[0]] * 3
    assert together[1] == together[4] == alone[1]
    assert len(set(together[3].text)) == 1


async def test_a_schema_that_cannot_be_enforced_is_refused_with_the_reason(ask: Ask) -> None:
    body = chat("Hello", structured_outputs={"json": {"type": "object", "not": {"type": "string"}}})
    response = await ask.gateway.http.post(path(body), json=body)
    assert response.status_code == 400
    assert 'Unimplemented keys: ["not"]' in response.json()["error"]["message"]


async def test_the_bytes_of_the_tokens_are_those_of_the_answer(ask: Ask) -> None:
    structure = {"regex": "(東|京|é|🙂){6}"}
    only = await choice(
        ask, chat("Go on.", structured_outputs=structure, logprobs=True, top_logprobs=3, temperature=1, seed=2)
    )
    entries = only["logprobs"]["content"]
    said = only["message"]["content"]
    assert len(said) == 6 and b"".join(bytes(entry["bytes"]) for entry in entries) == said.encode()
    assert len(entries) > 6  # tokens end inside characters
    for entry in entries:
        assert entry["logprob"] <= 0 and len(entry["top_logprobs"]) == 3


async def test_min_tokens_holds_off_the_end(ask: Ask) -> None:
    usual, longer = await asyncio.gather(
        ask(chat("Say yes.", stop=["e"])), ask(chat("Say yes.", stop=["e"], min_tokens=20, max_tokens=60))
    )
    assert usual.usage["completion_tokens"] < 20 <= longer.usage["completion_tokens"]
