"""Measures features of the LLM engine over HTTP through the gateway.

python -m benchmarks prefix        time to first token of a prompt of 1,500 tokens, sent again ÷ sent first
python -m benchmarks structures    tokens/s of streams with a JSON schema ÷ without

Streams with and without a schema take turns and generate equally many tokens: answers to the schema are longer than
`max_tokens`.
"""

import asyncio
import random
import statistics
import time
from pathlib import Path
from typing import Any

import aiohttp

from benchmarks.deployment import Deployment, deploy
from benchmarks.streamed_chat import stream_chat
from benchmarks.tables import Column, Plot, Table
from benchmarks.throughput import single_token_words

PROMPT_WORDS = 1450
"""Words of the long prompt, one token each. The chat template adds the other tokens."""
NEW_TOKENS = 64
STREAMS = (1, 16)
_PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 40},
        "age": {"type": "integer", "minimum": 0, "maximum": 120},
        "city": {"enum": ["Paris", "Oslo", "Lima", "Kyoto"]},
        "hobbies": {"type": "array", "items": {"type": "string", "maxLength": 30}, "minItems": 2, "maxItems": 5},
    },
    "required": ["name", "age", "city", "hobbies"],
    "additionalProperties": False,
}
SCHEMA = {"type": "array", "items": _PERSON, "minItems": 30}


def prefix_cache(repository: Path, model: str, rounds: int) -> list[Table]:
    """Measure the prefix cache. Each round has a prompt of its own."""
    words = [text for _, text in single_token_words(repository / model / "1" / "tokenizer.json")]
    with deploy(repository, model) as deployment:
        pairs = asyncio.run(_prefix(deployment, words, rounds))
    ratios = [second / first for first, second in pairs]
    cells = [statistics.median(column) for column in (*zip(*pairs, strict=True), ratios)]
    columns = (Column(""), Column("first", "s", 3), Column("again", "s", 3), *_ratio("again ÷ first", 3))
    rows = [("1,500 tokens", *cells, ratios)]
    plots = (Plot("", ("first", "again"), kind="bars"),)
    return [Table("A prompt of 1,500 tokens, sent twice: time to first token", columns, rows, plots=plots)]


def _ratio(name: str, digits: int) -> tuple[Column, Column]:
    return Column(name, digits=digits), Column("rounds", digits=digits)


async def _prefix(deployment: Deployment, words: list[str], rounds: int) -> list[tuple[float, float]]:
    """Return the times to first token of the first and the second request of each round, in seconds."""
    rng, pairs = random.Random(11), []
    async with aiohttp.ClientSession() as session:
        await stream_chat(session, deployment.gateway_url, _body(deployment.model, "Warm up.", 8))
        for _ in range(rounds):
            text = "".join(rng.choices(words, k=PROMPT_WORDS))
            answers = [
                await stream_chat(session, deployment.gateway_url, _body(deployment.model, text, 8, ignore_eos=True))
                for _ in range(2)
            ]
            assert not any(answer.error for answer in answers) and answers[0].text == answers[1].text, answers
            pairs.append((answers[0].first_token_seconds, answers[1].first_token_seconds))
    return pairs


def structured_outputs(repository: Path, model: str, rounds: int) -> list[Table]:
    """Measure structured outputs. The ratio is the median of the rounds' ratios."""
    words = [text for _, text in single_token_words(repository / model / "1" / "tokenizer.json")]
    rows = []
    with deploy(repository, model) as deployment:
        for streams in STREAMS:
            pairs = asyncio.run(_structures(deployment, words, streams, rounds))
            ratios = [structured / free for free, structured in pairs]
            free, structured = (statistics.median(column) for column in zip(*pairs, strict=True))
            rows.append((streams, free, structured, statistics.median(ratios), ratios))
    rates = Column("no schema", "tokens/s"), Column("JSON schema", "tokens/s")
    plots = (Plot("streams", ("no schema", "JSON schema"), kind="bars"),)
    columns = (Column("streams"), *rates, *_ratio("schema ÷ no schema", 2))
    return [Table("Answers with and without a JSON schema", columns, rows, plots=plots)]


async def _structures(deployment: Deployment, words: list[str], streams: int, rounds: int) -> list[tuple[float, float]]:
    """Return the tokens/s without and with a schema in each round."""
    rng, pairs = random.Random(13), []
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        for number in range(rounds + 1):
            rates = {}
            for structured in (False, True) if number % 2 else (True, False):
                # Each stream has a prompt of its own, so that the prefix cache holds none of them.
                texts = ["List thirty people as JSON." + "".join(rng.choices(words, k=30)) for _ in range(streams)]
                rates[structured] = await _rate(session, deployment, texts, structured)
            if number:  # the first round warms up
                pairs.append((rates[False], rates[True]))
    return pairs


async def _rate(session: aiohttp.ClientSession, deployment: Deployment, texts: list[str], structured: bool) -> float:
    """Return the tokens/s of all streams, from their start to the last token."""
    options: dict[str, Any] = {"ignore_eos": True}
    if structured:
        options = {"response_format": {"type": "json_schema", "json_schema": {"name": "people", "schema": SCHEMA}}}
    start = time.perf_counter()
    url = deployment.gateway_url
    bodies = [_body(deployment.model, text, NEW_TOKENS, **options) for text in texts]
    answers = await asyncio.gather(*(stream_chat(session, url, body) for body in bodies))
    for answer in answers:
        assert not answer.error and (answer.finish_reason, answer.tokens) == ("length", NEW_TOKENS), answer
    return sum(answer.tokens for answer in answers) / (max(answer.arrivals[-1] for answer in answers) - start)


def _body(model: str, text: str, max_tokens: int, **options: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": text}]
    return {"model": model, "messages": messages, "max_tokens": max_tokens, "temperature": 0, **options}
