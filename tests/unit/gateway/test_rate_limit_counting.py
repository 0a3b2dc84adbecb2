"""Rate limits: the rules, and counting in memory and in a real Redis."""

import asyncio
import time
from collections.abc import Iterator

import pytest
from prometheus_client import CollectorRegistry, Counter

from gateway import rate_rules
from gateway.errors import RateLimited
from gateway.http import rates
from gateway.http.rates import RateLimits
from gateway.settings import Settings
from tests.fakes.redis import RedisServer

KEY = rate_rules.caller_of_key("sk-first")


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    server = RedisServer()
    yield server
    server.stop()


@pytest.fixture(params=["memory", "redis"])
def store(request: pytest.FixtureRequest) -> str | None:
    return None if request.param == "memory" else request.getfixturevalue("redis").url


class Limited:
    """Rate limits, and the requests that were counted without Redis."""

    def __init__(self, text: str, store: str | None) -> None:
        self.unshared = Counter("unshared", "", registry=CollectorRegistry())
        self.limits = RateLimits(rate_rules.parse(text.split(",")), store, self.unshared)

    async def admit(self, caller: str) -> dict[str, str]:
        headers: dict[str, str] = {}
        await self.limits.admit(caller, headers)
        return headers

    async def refused(self, caller: str) -> tuple[RateLimited, dict[str, str]]:
        headers: dict[str, str] = {}
        with pytest.raises(RateLimited) as error:
            await self.limits.admit(caller, headers)
        assert type(error.value) is RateLimited
        return error.value, headers


def caller() -> str:
    return f"caller {time.monotonic_ns()}"


def test_rate_limit_rules_are_parsed() -> None:
    parsed = rate_rules.parse(
        ["1000/day", "60/minute", "9 tokens / hour", f"{KEY}=none", "10.0.0.7=5 requests/10 seconds"]
    )
    windows = {name: [(r.window.amount, r.window.get_expiry(), r.unit) for r in some] for name, some in parsed.items()}
    everybody = [(60, 60, "requests"), (9, 3600, "tokens"), (1000, 86400, "requests")]
    assert windows == {"": everybody, KEY: [], "10.0.0.7": [(5, 10, "requests")]}


@pytest.mark.parametrize(
    "entry", ["60", "0/minute", "-1/minute", "60/fortnight", "x/minute", "5 cats/day", "60/minute;"]
)
def test_invalid_rate_limits_are_refused(entry: str) -> None:
    with pytest.raises(ValueError, match="60/minute"):
        rate_rules.parse([entry])


@pytest.mark.parametrize("name", ["sk-first", "", "5f2b", "5F2B8C1D9E8B", "localhost", f"{KEY}0"])
def test_invalid_callers_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="12 hexadecimal digits"):
        rate_rules.parse([f"{name}=60/minute"])


def test_keys_and_addresses_identify_callers() -> None:
    assert KEY == "2a19f16bb258"  # printf %s sk-first | sha256sum | cut -c1-12
    assert rate_rules.caller_of_address("192.0.2.1") == rate_rules.caller_of_address("::ffff:192.0.2.1") == "192.0.2.1"
    assert (
        rate_rules.caller_of_address("2001:db8::1")
        == rate_rules.caller_of_address("2001:db8::ffff:2")
        == "2001:db8::/64"
    )
    assert rate_rules.caller_of_address("2001:db8:0:1::1") != rate_rules.caller_of_address("2001:db8::1")
    assert rate_rules.caller_of_address("fe80::1%eth0") == "fe80::/64"
    for nobody in (None, "", "a:b", "nobody", "::1::2", "192.0.2.1:80", "/run/gateway.sock", "a" * 100_000):
        assert rate_rules.caller_of_address(nobody) == "nobody"


async def test_requests_beyond_the_limit_are_refused(store: str | None) -> None:
    limited, first_caller, second_caller = Limited("3/minute", store), caller(), caller()
    results = [await limited.admit(first_caller) for _ in range(3)]
    assert [headers["x-ratelimit-remaining-requests"] for headers in results] == ["2", "1", "0"]
    assert {headers["x-ratelimit-limit-requests"] for headers in results} == {"3"}
    for _ in range(2):
        error, headers = await limited.refused(first_caller)
        assert headers["x-ratelimit-remaining-requests"] == "0"
        assert headers["x-ratelimit-reset-requests"] in ("59s", "1m0s")
        assert error.retry_after in (59, 60) and error.code == "rate_limit_exceeded"
        assert "3 requests per minute" in error.message
    assert (await limited.admit(second_caller))["x-ratelimit-remaining-requests"] == "2"
    await limited.limits.close()


async def test_the_window_ends(store: str | None) -> None:
    limited, first_caller = Limited("2/second", store), caller()
    for _ in range(3):
        await limited.admit(first_caller)
        await limited.admit(first_caller)
        error, _ = await limited.refused(first_caller)
        assert error.retry_after == 1
        await asyncio.sleep(1.05)
    await limited.limits.close()


async def test_concurrent_requests_do_not_exceed_the_limit(store: str | None) -> None:
    limited, first_caller = Limited("20/minute", store), caller()
    results = await asyncio.gather(*(limited.admit(first_caller) for _ in range(60)), return_exceptions=True)
    assert sum(isinstance(result, dict) for result in results) == 20
    assert sum(isinstance(result, RateLimited) for result in results) == 40
    await limited.limits.close()


async def test_a_request_refused_by_one_window_is_not_counted_in_another(store: str | None) -> None:
    limited, first_caller = Limited("4/day,1/second", store), caller()
    assert (await limited.admit(first_caller))["x-ratelimit-limit-requests"] == "1"
    for _ in range(5):
        await limited.refused(first_caller)
    await asyncio.sleep(1.05)
    for _ in range(2):
        await limited.admit(first_caller)
        await asyncio.sleep(1.05)
    assert (await limited.admit(first_caller))["x-ratelimit-remaining-requests"] == "0"
    await asyncio.sleep(1.05)
    error, headers = await limited.refused(first_caller)
    assert "4 requests per day" in error.message and error.retry_after is not None and error.retry_after > 86000
    assert (
        headers["x-ratelimit-reset-requests"].startswith("23h59m") or headers["x-ratelimit-reset-requests"] == "24h0m0s"
    )
    await limited.limits.close()


async def test_tokens_are_counted_when_they_are_known(store: str | None) -> None:
    limited, first_caller = Limited("100 tokens/minute,50/minute", store), caller()
    assert (await limited.admit(first_caller))["x-ratelimit-remaining-tokens"] == "100"
    limited.limits.charge_tokens(first_caller, 70)
    await asyncio.sleep(0.05)
    headers = await limited.admit(first_caller)
    assert (headers["x-ratelimit-limit-tokens"], headers["x-ratelimit-remaining-tokens"]) == ("100", "30")
    assert headers["x-ratelimit-remaining-requests"] == "48"
    limited.limits.charge_tokens(first_caller, 5000)
    await asyncio.sleep(0.05)
    error, headers = await limited.refused(first_caller)
    assert "100 tokens per minute" in error.message and headers["x-ratelimit-remaining-tokens"] == "0"
    assert headers["x-ratelimit-reset-tokens"] in ("58s", "59s", "1m0s")
    await limited.limits.close()


async def test_named_callers_have_their_own_limits(store: str | None) -> None:
    limited = Limited(f"1/hour,{KEY}=none,10.0.0.7=3/hour", store)
    assert [await limited.admit(KEY) for _ in range(3)] == [{}] * 3
    assert (await limited.admit("10.0.0.7"))["x-ratelimit-limit-requests"] == "3"
    await limited.limits.close()


async def test_only_named_callers_are_limited() -> None:
    limited = Limited(f"{KEY}=1/hour", None)
    assert await limited.admit("anybody") == {}
    await limited.admit(KEY)
    await limited.refused(KEY)


async def test_gateways_share_a_store(redis: RedisServer) -> None:
    first, second, first_caller = Limited("2/minute", redis.url), Limited("2/minute", redis.url), caller()
    await first.admit(first_caller)
    await second.admit(first_caller)
    await first.refused(first_caller)
    await second.refused(first_caller)
    await first.limits.close()
    await second.limits.close()


async def test_counters_of_idle_callers_are_removed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rates, "_SWEEP_SECONDS", 0.5)
    limited = Limited("1/second", None)
    for number in range(1000):
        await limited.admit(f"caller {number}")
    memory = limited.limits._memory
    assert len(memory.storage) == len(memory.expirations) == 1000
    await asyncio.sleep(1.1)
    await limited.admit("somebody")
    assert list(memory.storage) == list(memory.expirations) and len(memory.storage) == 1


async def test_a_hanging_redis_does_not_block_requests(redis: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Callers are counted by each gateway for itself meanwhile."""
    monkeypatch.setattr(rates, "_REDIS_RETRY_SECONDS", 0.8)
    limited, first_caller = Limited("40/minute,100 tokens/minute", redis.url), caller()
    await limited.admit(first_caller)
    with redis.frozen():
        began = time.monotonic()
        results = await asyncio.gather(*(limited.admit(first_caller) for _ in range(50)), return_exceptions=True)
        # One after another, they would wait 50 times.
        assert time.monotonic() - began < 25 * rates._REDIS_TIMEOUT_SECONDS
        assert sum(isinstance(result, dict) for result in results) == 40
        # Nobody waits again for what has just not come.
        began = time.monotonic()
        for _ in range(20):
            await limited.refused(first_caller)
        assert time.monotonic() - began < 10 * rates._REDIS_TIMEOUT_SECONDS
        assert limited.unshared._value.get() == 70
        limited.limits.charge_tokens(first_caller, 50)
    await asyncio.sleep(1)
    second_caller = caller()
    assert (await limited.admit(second_caller))["x-ratelimit-remaining-requests"] == "39"
    assert limited.unshared._value.get() == 71
    await limited.limits.close()


async def test_many_requests_are_no_redis_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    """A burst that takes Redis longer than the timeout is still counted there."""

    class Slow(rates._LocalStorage):
        async def incr(self, key: str, expiry: float, amount: int = 1) -> int:
            await asyncio.sleep(0.05)
            return await super().incr(key, expiry, amount)

    limited, first_caller = Limited("100/minute", None), caller()
    monkeypatch.setattr(limited.limits, "_redis", Slow())
    began = time.monotonic()
    results = await asyncio.gather(*(limited.admit(first_caller) for _ in range(250)), return_exceptions=True)
    assert time.monotonic() - began > rates._REDIS_TIMEOUT_SECONDS
    assert sum(isinstance(result, dict) for result in results) == 100
    assert limited.unshared._value.get() == 0


async def test_a_redis_that_restarts_is_used_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rates, "_REDIS_RETRY_SECONDS", 0.2)
    server = RedisServer()
    try:
        limited, first_caller = Limited("2/minute", server.url), caller()
        await limited.admit(first_caller)
        server.stop()
        assert (await limited.admit(first_caller))["x-ratelimit-remaining-requests"] == "1"
        server.start_again()
        await asyncio.sleep(0.3)
        assert (await limited.admit(first_caller))["x-ratelimit-remaining-requests"] == "1"
        server.stop()
        server.start_again()
        # A connection that broke meanwhile is nothing that anybody notices.
        assert (await limited.admit(first_caller))["x-ratelimit-remaining-requests"] == "1"
        assert limited.unshared._value.get() == 1
        await limited.limits.close()
    finally:
        server.stop()


def test_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITONIC_RATE_LIMITS", f"60/minute, {KEY} = none")
    monkeypatch.setenv("TRITONIC_RATE_LIMITS_STORE", "rediss://:hidden-word@redis.example:6379/1")
    settings = Settings()
    assert set(settings.rate_limits) == {"", KEY} and not settings.rate_limits[KEY]
    assert "hidden-word" not in repr(settings)
    monkeypatch.delenv("TRITONIC_RATE_LIMITS")
    assert not Settings().rate_limits


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("TRITONIC_RATE_LIMITS", "often", "60/minute"),
        ("TRITONIC_RATE_LIMITS", "sk-first=60/minute", "12 hexadecimal digits"),
        ("TRITONIC_RATE_LIMITS_STORE", "localhost:6379", "redis://HOST"),
        ("TRITONIC_RATE_LIMITS_STORE", "redis://localhost:99999", "rate_limits_store"),
        ("TRITONIC_MODEL_REQUESTS", "0", "model_requests"),
        ("TRITONIC_SEND_TIMEOUT", "0", "send_timeout"),
    ],
)
def test_settings_that_cannot_be_meant(monkeypatch: pytest.MonkeyPatch, name: str, value: str, message: str) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match=message):
        Settings()
