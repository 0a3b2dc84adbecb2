"""python -m benchmarks soak: a thousand random requests with random hang-ups, structures and lengths.

Greedy answers must be those that the same requests had alone, hung up or not; structured ones must validate; wrong ones
must be refused; in the end no row is taken, and neither memory nor open files have grown. Ends with an error otherwise.
"""

import asyncio
import json
import random
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import jsonschema
import psutil

from benchmarks.asking import Heard, ask
from benchmarks.serving import Serving, serving
from benchmarks.throughput import whole_words

REQUESTS, STREAMS, KINDS = 1000, 24, 60
HANG_UPS, WRONG = 0.2, 0.05
"""Shares of the requests whose client hangs up, and of those that cannot be served."""
SCHEMAS: list[dict[str, Any]] = [
    {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"], "additionalProperties": False},
    {"type": "array", "items": {"enum": ["red", "green", "blue"]}, "minItems": 1, "maxItems": 4},
    {"type": "object", "properties": {"ok": {"type": "boolean"}, "why": {"type": "string", "maxLength": 40}},
     "required": ["ok", "why"], "additionalProperties": False},
]  # fmt: skip
GROWTH: dict[str, Callable[[float], float]] = {
    "llm_rows_active": lambda before: 0,
    "llm_rows_waiting": lambda before: 0,
    "gateway, MB": lambda before: before * 1.05,
    "Triton and its models, MB": lambda before: before * 1.05,
    # Connections that are kept alive come and go.
    "open files of the gateway": lambda before: before + STREAMS,
    "open files of Triton": lambda before: before + 8,
}
"""The most that may be held afterwards."""
REFUSED: list[dict[str, Any]] = [
    {"temperature": 9},
    {"messages": []},
    {"structured_outputs": {"regex": "("}},
    {"max_tokens": 0},
    {"model": "nobody"},
    {"messages": [{"role": "user", "content": "word " * 9000}]},
]


@dataclass(slots=True)
class Tally:
    """What became of the requests."""

    whole: int = 0
    hung_up: int = 0
    refused: int = 0
    drawn: int = 0
    faults: list[str] | None = None


def make_kinds(words: list[str], model: str, chance: random.Random) -> list[dict[str, Any]]:
    """Requests of every length, free and structured, greedy."""
    systems = ["".join(chance.choices(words, k=size)) for size in (90, 300)]
    kinds = []
    for number in range(KINDS):
        text = "".join(chance.choices(words, k=int(2 ** chance.uniform(1, 9))))
        messages = [{"role": "user", "content": text}]
        if number % 3 == 0:  # beginnings that several share
            messages.insert(0, {"role": "system", "content": systems[number % 2]})
        body: dict[str, Any] = {"model": model, "messages": messages, "temperature": 0}
        body["max_tokens"] = int(2 ** chance.uniform(2, 6.5))
        if number % 4 == 0:
            schema = SCHEMAS[number // 4 % len(SCHEMAS)]
            body |= {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}}
        elif number % 4 == 1:
            body |= {"repetition_penalty": 1.1, "stop": ["\n\n"]}
        elif number % 4 == 2:
            body |= {"logprobs": True, "top_logprobs": 3}
        kinds.append(body)
    return kinds


async def _soak(run: Serving, words: list[str]) -> str:
    chance = random.Random(17)
    kinds = make_kinds(words, run.model, chance)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        alone = [await ask(session, run.gateway_url, body) for body in kinds]
        faults = [f"alone: {heard.error}" for heard in alone if heard.error]
        tally = Tally(faults=faults)
        # What is allocated once (threads, arenas, compiled grammars) is no growth: everything is asked once beforehand.
        await _crowd(session, run, kinds, alone, random.Random(1), Tally(faults=[]), REQUESTS // 4)
        before, start = await _held(session, run), time.perf_counter()
        await _crowd(session, run, kinds, alone, chance, tally, REQUESTS)
        seconds = time.perf_counter() - start
        after = await _held(session, run)
    assert tally.faults is not None
    for name, most in GROWTH.items():
        if after[name] > most(before[name]):
            tally.faults.append(f"{name}: {before[name]:.0f} before, {after[name]:.0f} after")
    lines = [
        f"{REQUESTS} requests, {STREAMS} at a time, in {seconds:.0f} s: {tally.whole} greedy answers as alone, "
        f"{tally.hung_up} hung up, {tally.refused} refused as they should be, {tally.drawn} drawn; "
        f"{len(tally.faults)} faults.",
        "",
        "| | before | after |",
        "|---|---:|---:|",
        *(f"| {name} | {before[name]:.0f} | {after[name]:.0f} |" for name in before),
    ]
    if tally.faults:
        raise SystemExit("\n".join([*lines, "", *tally.faults[:20]]))
    return "\n".join(lines)


async def _crowd(
    session: aiohttp.ClientSession,
    run: Serving,
    kinds: list[dict[str, Any]],
    alone: list[Heard],
    chance: random.Random,
    tally: Tally,
    requests: int,
) -> None:
    left = iter(range(requests))

    async def one_after_another() -> None:
        for _ in left:
            await _one(session, run, kinds, alone, chance, tally)

    await asyncio.gather(*(one_after_another() for _ in range(STREAMS)))


async def _one(
    session: aiohttp.ClientSession,
    run: Serving,
    kinds: list[dict[str, Any]],
    alone: list[Heard],
    chance: random.Random,
    tally: Tally,
) -> None:
    assert tally.faults is not None
    number = chance.randrange(len(kinds))
    body = kinds[number]
    fate = chance.random()
    if fate < WRONG:
        heard = await ask(session, run.gateway_url, {**body, **chance.choice(REFUSED)})
        tally.refused += 1
        if not heard.error.startswith("4"):
            tally.faults.append(f"a wrong request: {heard}"[:400])
    elif fate < WRONG + HANG_UPS:
        heard = await ask(session, run.gateway_url, body, hang_up_after=chance.choice([1, 2, 5, 20]))
        tally.hung_up += 1
        if heard.error or not alone[number].text.startswith(heard.text):
            tally.faults.append(
                f"kind {number}, hung up: {heard.error or heard.text!r}, alone {alone[number].text!r}"[:600]
            )
    elif fate < WRONG + HANG_UPS + 0.1:
        heard = await ask(session, run.gateway_url, {**body, "temperature": 1, "seed": chance.randrange(2**31)})
        tally.drawn += 1
        _check_structure(body, heard, tally.faults)
    else:
        heard = await ask(session, run.gateway_url, body)
        tally.whole += 1
        if (heard.text, heard.reason, heard.error) != (alone[number].text, alone[number].reason, ""):
            tally.faults.append(f"kind {number}: {heard.error or heard.text!r}, alone {alone[number].text!r}"[:600])
        _check_structure(body, heard, tally.faults)


def _check_structure(body: dict[str, Any], heard: Heard, faults: list[str]) -> None:
    if heard.error:
        faults.append(heard.error)
    elif "response_format" in body and heard.reason == "stop":
        try:
            jsonschema.validate(json.loads(heard.text), body["response_format"]["json_schema"]["schema"])
        except (ValueError, jsonschema.ValidationError) as error:
            faults.append(f"{heard.text!r} breaks its schema: {error}"[:400])


async def _held(session: aiohttp.ClientSession, run: Serving) -> dict[str, float]:
    """What is held once everything is quiet."""
    for _ in range(100):
        async with session.get(run.metrics_url) as response:
            text = await response.text()
        found = {name: float(value) for name, value in re.findall(r"^(llm_\w+)\{[^}]*\} (\S+)$", text, re.M)}
        if not found["llm_rows_active"] and not found["llm_rows_waiting"]:
            break
        await asyncio.sleep(0.1)
    await asyncio.sleep(1.0)
    held = {name: found[name] for name in ("llm_rows_active", "llm_rows_waiting")}
    gateway, triton = psutil.Process(run.gateway_pid), psutil.Process(run.triton_pid)
    held["gateway, MB"] = gateway.memory_info().rss / 2**20
    held["Triton and its models, MB"] = (
        sum(process.memory_info().rss for process in [triton, *triton.children(recursive=True)]) / 2**20
    )
    held["open files of the gateway"] = gateway.num_fds()
    held["open files of Triton"] = triton.num_fds()
    return held


def run(repository: Path, model: str) -> str:
    """Return what happened; `SystemExit` where something was wrong."""
    words = [text for _, text in whole_words(repository / model / "1" / "tokenizer.json")]
    with serving(repository, model) as running:
        return asyncio.run(_soak(running, words))
