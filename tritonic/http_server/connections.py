"""The table of all connections of one gateway process: their limit, their timeouts, eviction, and its log lines.

A connection is *evictable* until it has sent a whole request, and again once that request is answered. At the limit, a
new connection evicts another one: of the address with the most connections, the one that has been evictable longest.
So a client that holds a thousand idle connections keeps nobody out. Connections that are sending a body are evicted
last. The gateway refuses a new connection only when all others have requests in progress, and one address alone cannot
have requests in progress on all of them.
"""

import asyncio
import time
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import structlog

from gateway.rate_rules import caller_of_address
from tritonic.fd_limits import is_exhausted

MAX_BUFFERED_BYTES = 64 * 1024 * 1024
"""Limit on the unfinished heads and pipelined requests of all connections together."""

MAX_UNSENT_BYTES = 128 * 1024 * 1024
"""Limit on the response bytes of all connections that clients have not read yet. It is checked once a second."""

_LOG_INTERVAL_SECONDS = 60.0
"""Seconds between two summary lines in the log."""
_MAX_LOGGED_REFUSALS = 100
"""Refused requests with a log line of their own in each period. A client that sends garbage must not fill the disk."""
_MAX_ADDRESS_SHARE = 4
"""An address may have this many times as many open requests as there are connections left without one. An address that
is alone gets four fifths of all connections. Admission to a model has the same rule (`gateway.models.admission`)."""
_MAX_COMPARED_ADDRESSES = 256
"""With more addresses than this, eviction does not look for the address with the most connections: each has few."""


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """Limits of the connections of one process. Times are in seconds."""

    max_connections: int = 4096
    head_timeout: float = 15.0
    """From the opening of a connection, or the first byte of a later request, to the end of the head."""
    idle_timeout: float = 5.0
    """Between a response and the next request."""
    send_timeout: float = 120.0
    """Idle-read timeout: a client that reads nothing of its response for this long is disconnected."""


class Connection(Protocol):
    """The part of a connection that the table uses."""

    peer: "Peer"
    has_request: bool
    """True while a request of the connection is read or answered."""
    deadline: float
    """End of its timeout, on the event loop's clock; infinite while a request is in progress."""

    def on_deadline(self, now: float) -> None:
        """Close the connection if its timeout has ended at `now`."""

    def evict(self) -> None:
        """Close the connection at once, to make room for another."""

    @property
    def unsent_bytes(self) -> int:
        """Response bytes that the gateway holds because the client has not read them."""

    @property
    def is_closing(self) -> bool:
        """True when the transport closes as soon as it has sent its buffer."""


_Evictable: TypeAlias = tuple[dict[Connection, None], dict[Connection, None]]
"""Two ordered sets, longest evictable first: connections that send nothing or a head, and those that send a body."""


class Peer:
    """A client address and its connections."""

    __slots__ = ("address", "evictable", "num_connections", "num_requests")

    def __init__(self, address: str) -> None:
        self.address = address
        self.num_requests = 0
        """Requests of this address that are read or answered now."""
        self.num_connections = 0
        self.evictable: _Evictable = ({}, {})


class ConnectionTable:
    """The table of this process's connections."""

    def __init__(self, limits: ConnectionLimits) -> None:
        self.limits = limits
        self.buffered_bytes = 0
        """Bytes of all connections that wait for the rest of their head, or for the response before theirs."""
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
        """Add a connection from `host`. Return False when there is no room: the connection must then be refused."""
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
        has_room = len(self._all) < self.limits.max_connections
        peer.num_connections += 1
        self._all.add(connection)
        self.mark_evictable(connection)
        if not has_room:
            self.count_event("refused")
        return has_room

    def unregister(self, connection: Connection) -> None:
        """Remove a connection from the table. Do nothing when it is not there."""
        if connection in self._all:
            self._all.remove(connection)
            self._end_request(connection)
            self.mark_busy(connection)
            peer = connection.peer
            peer.num_connections -= 1
            if not peer.num_connections and self._peers.get(peer.address) is peer:
                del self._peers[peer.address]

    def start_request(self, connection: Connection) -> bool:
        """Count a new request of the connection. Return False when its address may not have one more."""
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
        """Make a connection evictable; `for_body` when it is sending the body of a request in progress."""
        if not for_body:
            self._end_request(connection)
        self.mark_busy(connection)
        if connection in self._all:
            self._evictable[for_body][connection] = connection.peer.evictable[for_body][connection] = None

    def mark_busy(self, connection: Connection) -> None:
        """Protect a connection from eviction: it has sent a whole request that is not answered yet."""
        for group in (*self._evictable, *connection.peer.evictable):
            group.pop(connection, None)

    def count_event(self, event: str) -> None:
        """Count an event for the log. The first is logged at once, later ones as one summary line a period."""
        self._counts[event] = self._counts.get(event, 0) + 1
        if time.monotonic() - self._logged_at >= _LOG_INTERVAL_SECONDS:
            self._log_counts()

    def log_refusal(self, connection: Connection, request_id: str, status: int, why: str) -> None:
        """Log a request that was refused before the application saw it, unless this period had many."""
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
        for group in groups:
            for longest in group:
                self.unregister(longest)
                longest.evict()
                self.count_event("gave_way")
                return

    def _limit_unsent(self) -> None:
        """When too many response bytes are unread, close connections of the address with the most of them."""
        unsent = {connection: size for connection in self._all if (size := connection.unsent_bytes)}
        excess = sum(unsent.values()) - MAX_UNSENT_BYTES
        if excess <= 0:
            return
        by_peer: dict[Peer, int] = {}
        for connection, size in unsent.items():
            by_peer[connection.peer] = by_peer.get(connection.peer, 0) + size
        slowest = max(by_peer, key=by_peer.__getitem__)
        for connection in sorted((c for c in unsent if c.peer is slowest), key=unsent.__getitem__, reverse=True):
            self.unregister(connection)
            connection.evict()
            self.count_event("unread")
            excess -= unsent[connection]
            if excess <= 0:
                return

    def _check_deadlines(self) -> None:
        """Close connections whose timeout has ended. One timer serves all connections, once a second or more often."""
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
