"""All connections of one gateway process: how many there may be, how long they may wait, and what is said of them.

A connection waits until it has sent a whole request, and again when that is answered. When there are as many
connections as may be, the one that has waited longest gives way to the next, of the address that has most of them: so
strangers who hold a thousand idle ones keep nobody out. Those that are sending a body come last. Only where all of them
are at work is the next one refused; one address alone cannot have all of them at work.
"""

import asyncio
import time
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import structlog

from gateway.rate_rules import of_address
from tritonic.descriptors import used_up

HELD_BYTES = 64 * 1024 * 1024
"""Unfinished heads and pipelined requests of all connections together."""

UNSENT_BYTES = 128 * 1024 * 1024
"""Answers that their clients have not taken, of all connections together; looked at once a second."""

_PERIOD = 60.0
"""Seconds between two lines of the log."""
_LINES = 100
"""Refused requests of each period that have lines of their own: who sends garbage must not fill the disk with it."""
_GREED = 4
"""An address may have so many times as many requests open as there are connections without one, as a caller may of the
places of a model (`gateway.admission`): four fifths, where it is alone."""
_FEW = 256
"""Addresses among which the one with most connections is looked for; where there are more, each has few."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What the connections of one process may take; times in seconds."""

    connections: int = 4096
    head: float = 15.0
    """From a connection's opening, or the first byte of another request, to the end of the head."""
    idle: float = 5.0
    """Between an answer and the next request."""
    send: float = 120.0
    """Without taking anything of an answer that waits."""


class Connection(Protocol):
    """What is asked of a connection."""

    peer: "Peer"
    begun: bool
    """Whether a request of it is being read or answered."""
    due: float
    """When it is overdue, by the loop's clock; never, while it is at work."""

    def overdue(self, now: float) -> None:
        """End it, where it is."""

    def give_way(self) -> None:
        """End it at once, for another."""

    @property
    def unsent(self) -> int:
        """Bytes of answers that wait in the gateway for the client to take them."""

    @property
    def is_closing(self) -> bool:
        """Whether it ends as soon as what was written is sent."""


_Waiting: TypeAlias = tuple[dict[Connection, None], dict[Connection, None]]
"""Those that send nothing, or a head; and those that send a body. Who has waited longest comes first."""


class Peer:
    """An address, and the connections from it."""

    __slots__ = ("address", "begun", "count", "waiting")

    def __init__(self, address: str) -> None:
        self.address = address
        self.begun = 0
        """Requests that are being read or answered."""
        self.count = 0
        self.waiting: _Waiting = ({}, {})


class Connections:
    """The connections of this process."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.held = 0
        """Bytes that wait in the gateway for the rest of their head, or for an answer before them."""
        self._all: set[Connection] = set()
        self._begun = 0
        self._peers: dict[str, Peer] = {}
        self._waiting: _Waiting = ({}, {})
        self._counts: dict[str, int] = {}
        self._told = -_PERIOD
        self._lines = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._step = min(1.0, limits.head / 4, limits.idle / 4, limits.send / 4)
        self._log = structlog.get_logger("gateway.connections")

    def __len__(self) -> int:
        return len(self._all)

    def opened(self, connection: Connection, host: str | None) -> bool:
        """Take a connection from `host` in. Returns whether there is room for it; where not, it is to be refused."""
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
            self._loop.call_later(self._step, self._look)
        address = of_address(host)
        peer = self._peers.get(address)
        if peer is None:
            peer = self._peers[address] = Peer(address)
        connection.peer = peer
        if len(self._all) >= self.limits.connections:
            self._make_room()
        room = len(self._all) < self.limits.connections
        peer.count += 1
        self._all.add(connection)
        self.waits(connection)
        if not room:
            self.note("refused")
        return room

    def closed(self, connection: Connection) -> None:
        """Forget a connection."""
        if connection in self._all:
            self._all.remove(connection)
            self._ends(connection)
            self.works(connection)
            peer = connection.peer
            peer.count -= 1
            if not peer.count and self._peers.get(peer.address) is peer:
                del self._peers[peer.address]

    def begins(self, connection: Connection) -> bool:
        """Note that a request is begun with. Returns whether its address may have one more."""
        if connection.peer.begun >= _GREED * (self.limits.connections - self._begun):
            return False
        connection.begun = True
        connection.peer.begun += 1
        self._begun += 1
        return True

    def _ends(self, connection: Connection) -> None:
        if connection.begun:
            connection.begun = False
            connection.peer.begun -= 1
            self._begun -= 1

    def waits(self, connection: Connection, *, for_body: bool = False) -> None:
        """Note that a connection may give way from now on."""
        if not for_body:
            self._ends(connection)
        self.works(connection)
        if connection in self._all:
            self._waiting[for_body][connection] = connection.peer.waiting[for_body][connection] = None

    def works(self, connection: Connection) -> None:
        """Note that a connection has a whole request, and may not give way until it is answered."""
        for waiting in (*self._waiting, *connection.peer.waiting):
            waiting.pop(connection, None)

    def note(self, what: str) -> None:
        """Count something that the log is to tell: at once, and then what came in each period together."""
        self._counts[what] = self._counts.get(what, 0) + 1
        if time.monotonic() - self._told >= _PERIOD:
            self._tell()

    def tell_of(self, connection: Connection, request_id: str, status: int, why: str) -> None:
        """Write a line about a request that nobody but the connection has seen, unless there were many."""
        if self._lines < _LINES:
            self._lines += 1
            caller = connection.peer.address
            self._log.info("request refused", request_id=request_id, caller=caller, status=status, why=why)

    def _tell(self) -> None:
        counts, self._counts = self._counts, {}
        self._told, self._lines = time.monotonic(), 0
        bound = self.limits.connections
        self._log.warning("connections cut short", **counts, connections=len(self._all), bound=bound)

    def _make_room(self) -> None:
        groups = self._waiting
        if len(self._peers) <= _FEW:
            most = max(self._peers.values(), key=lambda peer: peer.count)
            groups = (*most.waiting, *groups)  # type: ignore[assignment]
        for waiting in groups:
            for longest in waiting:
                self.closed(longest)
                longest.give_way()
                self.note("gave_way")
                return

    def _spare_memory(self) -> None:
        """Where too much waits to be sent, end connections of the address that lets most of it wait."""
        unsent = {each: size for each in self._all if (size := each.unsent)}
        beyond = sum(unsent.values()) - UNSENT_BYTES
        if beyond <= 0:
            return
        by_peer: dict[Peer, int] = {}
        for each, size in unsent.items():
            by_peer[each.peer] = by_peer.get(each.peer, 0) + size
        greediest = max(by_peer, key=by_peer.__getitem__)
        for each in sorted((each for each in unsent if each.peer is greediest), key=unsent.__getitem__, reverse=True):
            self.closed(each)
            each.give_way()
            self.note("unread")
            beyond -= unsent[each]
            if beyond <= 0:
                return

    def _look(self) -> None:
        """End what is overdue, once a second. No timer is kept for each connection."""
        assert self._loop is not None
        now = self._loop.time()
        for connection in [each for each in self._all if each.due <= now or each.is_closing]:
            connection.overdue(now)
        self._spare_memory()
        if used_up():
            self.note("without_descriptors")
        if self._counts and time.monotonic() - self._told >= _PERIOD:
            self._tell()
        self._loop.call_later(self._step, self._look)
