"""Rate limits of callers: the settings `rate_limits` and `rate_limits_store`.

Windows are fixed: a window begins with its first request and ends after its length, so that the store has one number
per caller and window. Responses carry OpenAI's headers (https://platform.openai.com/docs/guides/rate-limits).
"""

import asyncio
import math
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import structlog
from limits import RateLimitItem
from limits.aio.storage import MemoryStorage, RedisStorage, Storage
from prometheus_client import Counter

from gateway.errors import RateLimited
from gateway.rate_rules import DEFAULT_CALLER, Rate, Rates

if TYPE_CHECKING:
    from redis.asyncio import ConnectionPool

T = TypeVar("T")

RATE_LIMIT_HEADERS = tuple(
    f"x-ratelimit-{field}-{unit}" for unit in ("requests", "tokens") for field in ("limit", "remaining", "reset")
)

_REDIS_TIMEOUT_SECONDS = 1.0
"""Seconds that Redis may take for all commands of one request."""
_REDIS_RETRY_SECONDS = 5.0
"""Seconds after a failure during which Redis is not tried again."""
_MAX_REDIS_REQUESTS = 8
"""Requests that use Redis at a time. The timeout of the others starts when they get a connection, so that a burst of
thousands of requests does not look like a failure of Redis."""
_SWEEP_SECONDS = 60.0
"""Seconds between two removals of windows that have ended."""


@dataclass(frozen=True, slots=True)
class _LimitStatus:
    """The state of one rate of a caller: the amount that remains, and the seconds until the window ends."""

    rate: Rate
    remaining: int
    reset_seconds: float
    exceeded: bool


class RateLimits:
    """Counts the requests and tokens of all callers against their rates."""

    def __init__(self, rates: Rates, store: str | None, unshared: Counter) -> None:
        """`store` is the URL of a Redis that several gateways may share. None: this process counts alone.

        `unshared` counts the requests that this process counted alone because Redis did not respond. Raises
        `ValueError` for an invalid URL.
        """
        self._rates = rates
        self._unshared = unshared
        self._memory = _LocalStorage()
        self._pool = _pool(store) if store else None
        self._redis: Storage | None = (
            RedisStorage("async+redis://", implementation="redispy", connection_pool=self._pool, key_prefix="tritonic")  # type: ignore[arg-type]
            if self._pool
            else None
        )
        self._redis_slots = asyncio.Semaphore(_MAX_REDIS_REQUESTS)
        self._redis_down_until = 0.0
        self._charging: set[asyncio.Task[None]] = set()
        self._log = structlog.get_logger("gateway.http.rates")

    async def admit(self, caller: str, headers: dict[str, str]) -> None:
        """Count a request, and add the rate-limit headers to the `headers` of its response.

        Raises `RateLimited` if a rate of the caller is exceeded.
        """
        rates = self._rates_of(caller)
        if not rates:
            return
        statuses = await self._in_store(lambda store: _count(store, caller, rates))
        headers |= _headers(statuses)
        if exceeded := [status for status in statuses if status.exceeded]:
            longest = max(exceeded, key=lambda status: status.reset_seconds)
            wait = max(1, math.ceil(longest.reset_seconds))
            raise RateLimited(
                f"The rate limit of {longest.rate.window.amount} {longest.rate.unit} per "
                f"{_window(longest.rate.window)} is exceeded. Try again in {_duration(wait)}.",
                retry_after=wait,
            )

    def charge_tokens(self, caller: str, tokens: int) -> None:
        """Count the tokens of a response, complete or not, in a task of its own."""
        rates = [rate for rate in self._rates_of(caller) if rate.unit == "tokens"]
        if rates and tokens:
            charging = asyncio.create_task(self._in_store(lambda store: _charge(store, caller, rates, tokens)))
            self._charging.add(charging)
            charging.add_done_callback(self._charging.discard)

    async def close(self) -> None:
        """Wait until all tokens are counted, and close the connections to Redis."""
        if self._charging:
            await asyncio.wait(self._charging, timeout=_REDIS_TIMEOUT_SECONDS)
        if self._pool:
            await self._pool.disconnect()

    def _rates_of(self, caller: str) -> tuple[Rate, ...]:
        rates = self._rates.get(caller)
        return self._rates.get(DEFAULT_CALLER, ()) if rates is None else rates

    async def _in_store(self, work: Callable[[Storage], Awaitable[T]]) -> T:
        """Run `work` on Redis, or on the counts of this process if there is no Redis or it does not respond."""
        if self._redis is None:
            return await work(self._memory)
        async with self._redis_slots:
            # After a failure, requests do not wait for the next timeout.
            if time.monotonic() >= self._redis_down_until:
                try:
                    async with asyncio.timeout(_REDIS_TIMEOUT_SECONDS):
                        return await work(self._redis)
                except Exception as error:  # a failure of Redis or the network must not fail the request
                    if time.monotonic() >= self._redis_down_until:
                        self._redis_down_until = time.monotonic() + _REDIS_RETRY_SECONDS
                        reason = str(error) or type(error).__name__
                        self._log.warning("redis does not respond; this process counts rates alone", reason=reason)
        self._unshared.inc()
        return await work(self._memory)


async def _count(store: Storage, caller: str, rates: tuple[Rate, ...]) -> list[_LimitStatus]:
    statuses: list[_LimitStatus] = []
    refused = False
    for rate in rates:
        item, key = rate.window, rate.window.key_for(rate.unit, caller)
        if rate.unit == "requests" and not refused:
            remaining = item.amount - await store.incr(key, item.get_expiry())
            refused = exceeded = remaining < 0
        else:
            # The tokens of a response are known at its end, so a caller with any tokens remaining is admitted.
            remaining = item.amount - await store.get(key)
            exceeded = remaining <= 0 and rate.unit == "tokens"
        reset = await store.get_expiry(key) - time.time()
        statuses.append(_LimitStatus(rate, max(remaining, 0), max(reset, 0.0), exceeded))
    return statuses


async def _charge(store: Storage, caller: str, rates: list[Rate], tokens: int) -> None:
    for rate in rates:
        await store.incr(rate.window.key_for("tokens", caller), rate.window.get_expiry(), tokens)


class _LocalStorage(MemoryStorage):
    """The in-memory storage of the library `limits`, with one change.

    It removes ended windows once a minute. The library searches the windows of all callers at each request.
    """

    def __init__(self) -> None:
        super().__init__()
        self._swept = time.time()

    async def incr(self, key: str, expiry: float, amount: int = 1) -> int:
        now = time.time()
        if now - self._swept >= _SWEEP_SECONDS:
            self._swept = now
            for old in [old for old, end in self.expirations.items() if end <= now]:
                del self.expirations[old]
                self.storage.pop(old, None)
        if self.expirations.get(key, 0.0) <= now:
            self.storage[key] = 0
            self.expirations[key] = now + expiry
        self.storage[key] += amount
        return self.storage[key]


def _pool(url: str) -> "ConnectionPool":
    # Imported here, so that gateways without Redis do not load its client.
    from redis.asyncio import ConnectionPool
    from redis.asyncio.retry import Retry
    from redis.backoff import NoBackoff

    return ConnectionPool.from_url(
        url,
        # After a restart of Redis, a closed connection is noticed on use. One retry opens another.
        retry=Retry(NoBackoff(), 1),
    )


def _headers(statuses: list[_LimitStatus]) -> dict[str, str]:
    """Return the headers, for requests and for tokens. They report the limit that is closest to being reached."""
    headers = {}
    for unit in ("requests", "tokens"):
        if matching := [status for status in statuses if status.rate.unit == unit]:
            tightest = min(matching, key=lambda status: (status.remaining, -status.reset_seconds))
            headers[f"x-ratelimit-limit-{unit}"] = str(tightest.rate.window.amount)
            headers[f"x-ratelimit-remaining-{unit}"] = str(tightest.remaining)
            headers[f"x-ratelimit-reset-{unit}"] = _duration(math.ceil(tightest.reset_seconds))
    return headers


def _window(item: RateLimitItem) -> str:
    name = item.GRANULARITY.name
    return name if item.multiples == 1 else f"{item.multiples} {name}s"


def _duration(seconds: int) -> str:
    """Format seconds as OpenAI does, in the format of Go: `1s`, `6m0s`, `1h0m0s`."""
    minutes, rest = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes}m{rest}s" if hours else f"{minutes}m{rest}s" if minutes else f"{rest}s"
