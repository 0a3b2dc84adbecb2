"""The mixed load: what is asked next, what becomes of it, and what is wrong with that."""

import asyncio
import json
import random
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import aiohttp

from benchmarks.soak.asking import Answer, Client, answered
from benchmarks.soak.kinds import Kind
from benchmarks.soak.reading import Unreadable
from benchmarks.soak.service import HASTY, KEYS
from benchmarks.soak.wrong import Wrong

STREAMS = 24
"""Requests that are open at once."""
FATES = {"served": 60, "read slowly": 4, "drawn by lot": 6, "hung up": 15, "half a request": 3, "wrong": 8, "hasty": 4}
"""How often each thing happens, in percent."""
SHARES = {"chat": 40, "structured": 12, "embeddings": 26, "picture": 8, "edit": 4, "task": 4}
"""What is asked for, by the first word of a kind's name."""
PAUSE = 0.05
"""Seconds that a slow reader rests after each piece."""


@dataclass(slots=True)
class Tally:
    """What became of the requests, by kind."""

    answered: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    hung_up: Counter[str] = field(default_factory=Counter)
    wrong: Counter[str] = field(default_factory=Counter)
    """Faults."""
    faults: list[str] = field(default_factory=list)
    """Their sentences."""
    seconds: dict[str, list[tuple[float, float]]] = field(default_factory=lambda: defaultdict(list))
    """Of each answer when it was asked for, since the load began, and how long it took."""
    slowness: list[tuple[float, float]] = field(default_factory=list)
    """The same for all kinds together, as multiples of what each took alone."""

    def fault(self, name: str, sentence: str) -> None:
        """Note one."""
        self.wrong[name] += 1
        self.faults.append(f"{name}: {sentence}"[:600])


@dataclass(slots=True)
class Load:
    """Everything that may be asked. `alone` are the answers of the kinds, `usual` the seconds that they took."""

    kinds: Sequence[Kind]
    wrongs: Sequence[Wrong]
    chance: random.Random
    alone: list[Any] = field(default_factory=list)
    usual: list[float] = field(default_factory=list)
    _groups: dict[str, list[int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._groups = {word: [] for word in SHARES}
        for number, kind in enumerate(self.kinds):
            word = kind.name.split()[0].rstrip(",")
            self._groups[word.removesuffix("s") if word == "pictures" else word].append(number)

    async def listen(self, client: Client) -> None:
        """Ask for each kind alone, and keep its answer. Raises `Unreadable` where one is none."""
        for number, kind in enumerate(self.kinds):
            answer = await answered(client, kind, KEYS[0])
            if answer.status != 200:
                raise Unreadable(f"{kind.name}, alone: {answer.status} {answer.data[:300]!r}")
            read = kind.read(answer.data)
            if said := kind.valid(read):
                raise Unreadable(f"{kind.name}, alone: {said}")
            if kind.twin >= 0 and (said := read.differs(self.alone[kind.twin])):
                raise Unreadable(f"kind {number}, {kind.name}, is another than its twin: {said}")
            self.alone.append(read if kind.twin < 0 else self.alone[kind.twin])
            self.usual.append(answer.seconds)

    async def touch(self, url: str) -> Tally:
        """Do each thing once: serve each kind beside others, hang up on it, and refuse each wrong request."""
        tally, timeout = Tally(), aiohttp.ClientTimeout(total=300)
        turns = [
            (fate, number) for number in range(len(self.kinds)) for fate in ("served", "hung up", "half a request")
        ]
        turns += [("wrong", number) for number in range(len(self.wrongs))]
        self.chance.shuffle(turns)
        left = iter(turns)
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=timeout) as session:
            client = Client(session, url)

            async def one_after_another() -> None:
                for fate, number in left:
                    await self._turn(client, tally, 0.0, fate, number)

            await asyncio.gather(*(one_after_another() for _ in range(STREAMS)))
        return tally

    async def run(self, url: str, seconds: float) -> Tally:
        """Keep `STREAMS` requests open for so long."""
        tally, began = Tally(), time.perf_counter()
        timeout = aiohttp.ClientTimeout(total=300)
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=timeout) as session:
            client = Client(session, url)

            async def one_after_another() -> None:
                while (now := time.perf_counter() - began) < seconds:
                    (fate,) = self.chance.choices(list(FATES), list(FATES.values()))
                    number = self.chance.randrange(len(self.wrongs)) if fate == "wrong" else self.pick(fate)
                    await self._turn(client, tally, now, fate, number)

            await asyncio.gather(*(one_after_another() for _ in range(STREAMS)))
        return tally

    async def _turn(self, client: Client, tally: Tally, now: float, fate: str, number: int) -> None:
        """`number` is that of the kind, or of the wrong request."""
        key = self.chance.choice(KEYS)
        name = self.kinds[number].name if fate == "served" else fate
        try:
            match fate:
                case "half a request":
                    await client.half(self.kinds[number], key, self.chance)
                    tally.hung_up[name] += 1
                case "wrong":
                    await self._wrong(client, tally, self.wrongs[number], key)
                case "hasty":
                    await self._hasty(client, tally, number)
                case "hung up":
                    await self._hung_up(client, tally, number, key)
                case "drawn by lot":
                    await self._drawn(client, tally, number, key)
                case _:
                    pause = {"pause": PAUSE} if fate == "read slowly" else {}
                    answer = await answered(client, self.kinds[number], key, **pause)
                    if self._judge(tally, name, number, answer):
                        tally.seconds[name].append((now, answer.seconds))
                        if not pause:
                            tally.slowness.append((now, answer.seconds / self.usual[number]))
        except (aiohttp.ClientError, OSError, TimeoutError, Unreadable) as error:
            tally.fault(name, f"kind {number}: {type(error).__name__}: {error}")

    def pick(self, fate: str) -> int:
        """The number of a kind that suits what is to become of it."""
        if fate in ("drawn by lot", "read slowly"):
            return self.chance.choice([n for n in self._groups["chat"] if "streamed" in self.kinds[n].name])
        if fate == "hasty":
            return self.chance.choice(self._groups["embeddings"])
        (group,) = self.chance.choices(list(SHARES), list(SHARES.values()))
        return self.chance.choice(self._groups[group])

    def _judge(self, tally: Tally, name: str, number: int, answer: Answer) -> bool:
        """Hold an answer to the one that the same request had alone."""
        kind = self.kinds[number]
        if answer.status != 200:
            tally.fault(name, f"kind {number}: {answer.status} {answer.data[:300]!r}")
            return False
        read = kind.read(answer.data)
        if said := read.differs(self.alone[number]) or kind.valid(read):
            tally.fault(name, f"kind {number}: {said}")
            return False
        tally.answered[name] += 1
        return True

    async def _wrong(self, client: Client, tally: Tally, wrong: Wrong, key: str) -> None:
        answer = await client.ask(
            wrong.path, wrong.body, wrong.key or key, content_type=wrong.content_type, method=wrong.method
        )
        tally.refused["wrong"] += 1
        if answer.status not in wrong.statuses or answer.refusal():
            said = answer.refusal() or f"{answer.status} {answer.data[:200]!r}"
            tally.fault("wrong", f"{wrong.what} at {wrong.path}: {said}")

    async def _hasty(self, client: Client, tally: Tally, number: int) -> None:
        answer = await answered(client, self.kinds[number], HASTY)
        if answer.status != 429:
            self._judge(tally, "hasty", number, answer)
            return
        tally.refused["hasty"] += 1
        if said := answer.refusal():
            tally.fault("hasty", said)

    async def _hung_up(self, client: Client, tally: Tally, number: int, key: str) -> None:
        """At a random moment, mostly before the answer is done."""
        kind = self.kinds[number]
        patience = self.chance.random() * 3 * self.usual[number]
        if kind.task:
            answer = await client.task(kind, key, patience)
        else:
            answer = await client.ask(kind.path, kind.body, key, content_type=kind.content_type, patience=patience)
        if not answer.cut:
            self._judge(tally, "hung up", number, answer)
            return
        tally.hung_up["hung up"] += 1
        if answer.status not in (0, 200):
            tally.fault("hung up", f"kind {number}: {answer.status} {answer.data[:200]!r}")
        elif kind.cut and (said := kind.cut(answer.data).differs(self.alone[number])):
            tally.fault("hung up", f"kind {number}: {said}")

    async def _drawn(self, client: Client, tally: Tally, number: int, key: str) -> None:
        """Nobody knows what it says, but it must be an answer."""
        body = json.loads(self.kinds[number].body)
        body |= {"temperature": 1, "seed": self.chance.randrange(2**31)}
        kind = replace(self.kinds[number], body=json.dumps(body).encode())
        answer = await answered(client, kind, key)
        if answer.status != 200:
            tally.fault("drawn by lot", f"{answer.status} {answer.data[:200]!r}")
        elif said := kind.valid(kind.read(answer.data)):
            tally.fault("drawn by lot", said)
        else:
            tally.answered["drawn by lot"] += 1
