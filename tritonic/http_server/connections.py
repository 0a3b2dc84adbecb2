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

from gateway.rate_rules import caller_of_address
from tritonic.fd_limits import is_exhausted

MAX_BUFFERED_BYTES = 64 * 1024 * 1024
"""Unfinished heads and pipelined requests of all connections together."""

MAX_UNSENT_BYTES = 128 * 1024 * 1024
"""Answers that their clients have not taken, of all connections together; looked at once a second."""

_LOG_INTERVAL_SECONDS = 60.0
"""Seconds between two lines of the log."""
_MAX_LOGGED_REFUSALS = 100
"""Refused requests of each period that have lines of their own: who sends garbage must not fill the disk with it."""
_MAX_ADDRESS_SHARE = 4
"""An address may have so many times as many requests open as there are connections without one, as a caller may of the
places of a model (`gateway.models.admission`): four fifths, where it is alone."""
_MAX_COMPARED_ADDRESSES = 256
"""Addresses among which the one with most connections is looked for; where there are more, each has few."""


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """What the connections of one process may take; times in seconds."""

    max_connections: int = 4096
    head_timeout: float = 15.0
    """From a connection's opening, or the first byte of another request, to the end of the head."""
    idle_timeout: float = 5.0
    """Between an answer and the next request."""
    send_timeout: float = 120.0
    """Without taking anything of an answer that waits."""


class Connection(Protocol):
    """What is asked of a connection."""

    peer: "Peer"
    has_request: bool
    """Whether a request of it is being read or answered."""
    deadline: float
    """When it is overdue, by the loop's clock; never, while it is at work."""

    def on_deadline(self, now: float) -> None:
        """End it, where it is."""

    def evict(self) -> None:
        """End it at once, for another."""

    @property
    def unsent_bytes(self) -> int:
        """Bytes of answers that wait in the gateway for the client to take them."""

    @property
    def is_closing(self) -> bool:
        """Whether it ends as soon as what was written is sent."""


_Evictable: TypeAlias = tuple[dict[Connection, None], dict[Connection, None]]
"""Those that send nothing, or a head; and those that send a body. Who has waited longest comes first."""


class Peer:
    """An address, and the connections from it."""

    __slots__ = ("address", "evictable", "num_connections", "num_requests")

    def __init__(self, address: str) -> None:
        self.address = address
        self.num_requests = 0
        """Requests that are being read or answered."""
        self.num_connections = 0
        self.evictable: _Evictable = ({}, {})


class ConnectionTable:
    """The connections of this process."""

    def __init__(self, limits: ConnectionLimits) -> None:
        self.limits = limits
        self.buffered_bytes = 0
        """Bytes that wait in the gateway for the rest of their head, or for an answer before them."""
        self._all: set[Connection] = set()
        self._num_requests = 0
        self._peers: dict[str, Peer] = {}
        self._evictable: _Evictable = ({}, {})
        self._counts: dict[str, int] = {}
        self._logged_at = -_LOG_INTERVAL_SECONDS
        self._logged_refusals = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._check_seconds = min(1.0, limits.head_timeout / 4, limits.idle_timeout / 4, limits.send_timeout / 4)
        self._log = structlog.get_logger("gateway.connections")

    def __len__(self) -> int:
        return len(self._all)

    def register(self, connection: Connection, host: str | None) -> bool:
        """Take a connection from `host` in. Returns whether there is room for it; where not, it is to be refused."""
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
            self._loop.call_later(self._check_seconds, self._check_deadlines)
        address = caller_of_address(host)
        peer = self._peers.get(address)
        if peer is None:
            peer = self._peers[address] = Peer(address)
        connection.peer = peer
        if len(self._all) >= self.limits.max_connections:
            self._evict_one()
        room = len(self._all) < self.limits.max_connections
        peer.num_connections += 1
        self._all.add(connection)
        self.mark_evictable(connection)
        if not room:
            self.count_event("refused")
        return room

    def unregister(self, connection: Connection) -> None:
        """Forget a connection."""
        if connection in self._all:
            self._all.remove(connection)
            self._end_request(connection)
            self.mark_busy(connection)
            peer = connection.peer
            peer.num_connections -= 1
            if not peer.num_connections and self._peers.get(peer.address) is peer:
                del self._peers[peer.address]

    def start_request(self, connection: Connection) -> bool:
        """Note that a request is begun with. Returns whether its address may have one more."""
        if connection.peer.num_requests >= _MAX_ADDRESS_SHARE * (self.limits.max_connections - self._num_requests):
            return False
        connection.has_request = True
        connection.peer.num_requests += 1
        self._num_requests += 1
        return True

    def _end_request(self, connection: Connection) -> None:
        if connection.has_request:
            connection.has_request = False
            connection.peer.num_requests -= 1
            self._num_requests -= 1

    def mark_evictable(self, connection: Connection, *, for_body: bool = False) -> None:
        """Note that a connection may give way from now on."""
        if not for_body:
            self._end_request(connection)
        self.mark_busy(connection)
        if connection in self._all:
            self._evictable[for_body][connection] = connection.peer.evictable[for_body][connection] = None

    def mark_busy(self, connection: Connection) -> None:
        """Note that a connection has a whole request, and may not give way until it is answered."""
        for waiting in (*self._evictable, *connection.peer.evictable):
            waiting.pop(connection, None)

    def count_event(self, what: str) -> None:
        """Count something that the log is to tell: at once, and then what came in each period together."""
        self._counts[what] = self._counts.get(what, 0) + 1
        if time.monotonic() - self._logged_at >= _LOG_INTERVAL_SECONDS:
            self._log_counts()

    def log_refusal(self, connection: Connection, request_id: str, status: int, why: str) -> None:
        """Write a line about a request that nobody but the connection has seen, unless there were many."""
        if self._logged_refusals < _MAX_LOGGED_REFUSALS:
            self._logged_refusals += 1
            caller = connection.peer.address
            self._log.info("request refused", request_id=request_id, caller=caller, status=status, why=why)

    def _log_counts(self) -> None:
        counts, self._counts = self._counts, {}
        self._logged_at, self._logged_refusals = time.monotonic(), 0
        bound = self.limits.max_connections
        self._log.warning("connections cut short", **counts, connections=len(self._all), bound=bound)

    def _evict_one(self) -> None:
        groups = self._evictable
        if len(self._peers) <= _MAX_COMPARED_ADDRESSES:
            most = max(self._peers.values(), key=lambda peer: peer.num_connections)
            groups = (*most.evictable, *groups)  # type: ignore[assignment]
        for waiting in groups:
            for longest in waiting:
                self.unregister(longest)
                longest.evict()
                self.count_event("gave_way")
                return

    def _limit_unsent(self) -> None:
        """Where too much waits to be sent, end connections of the address that lets most of it wait."""
        unsent = {each: size for each in self._all if (size := each.unsent_bytes)}
        beyond = sum(unsent.values()) - MAX_UNSENT_BYTES
        if beyond <= 0:
            return
        by_peer: dict[Peer, int] = {}
        for each, size in unsent.items():
            by_peer[each.peer] = by_peer.get(each.peer, 0) + size
        greediest = max(by_peer, key=by_peer.__getitem__)
        for each in sorted((each for each in unsent if each.peer is greediest), key=unsent.__getitem__, reverse=True):
            self.unregister(each)
            each.evict()
            self.count_event("unread")
            beyond -= unsent[each]
            if beyond <= 0:
                return

    def _check_deadlines(self) -> None:
        """End what is overdue, once a second. No timer is kept for each connection."""
        assert self._loop is not None
        now = self._loop.time()
        for connection in [each for each in self._all if each.deadline <= now or each.is_closing]:
            connection.on_deadline(now)
        self._limit_unsent()
        if is_exhausted():
            self.count_event("without_descriptors")
        if self._counts and time.monotonic() - self._logged_at >= _LOG_INTERVAL_SECONDS:
            self._log_counts()
        self._loop.call_later(self._check_seconds, self._check_deadlines)
