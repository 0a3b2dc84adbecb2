"""Which secrets of webhooks are accepted, and the times of their attempts."""

import base64

import pytest
from pydantic import ValidationError

from gateway.settings import Settings
from gateway.tasks import webhooks

KEY = base64.b64encode(bytes(32)).decode()


def test_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Settings().webhook_secret == []
    monkeypatch.setenv("TRITONIC_WEBHOOK_SECRET", f"whsec_{KEY}, whsec_{'C' * 32}")
    settings = Settings()
    assert [secret.get_secret_value() for secret in settings.webhook_secret] == [f"whsec_{KEY}", f"whsec_{'C' * 32}"]
    assert KEY not in repr(settings) + settings.model_dump_json()
    monkeypatch.setenv("TRITONIC_WEBHOOK_SECRET", "")  # compose files name every variable
    assert Settings().webhook_secret == []


@pytest.mark.parametrize(
    "written", [KEY, "whsec_", "whsec_AAAA", f"whsec_{KEY}!", f"secret_{KEY}", "whsec_" + "A" * 88, f"whsec_{KEY},x"]
)
def test_invalid_secrets_are_refused(written: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITONIC_WEBHOOK_SECRET", written)
    with pytest.raises(ValidationError, match="24 to 64 random bytes") as refused:
        Settings()
    assert "input_value" not in str(refused.value)


def test_signature_of_a_published_example() -> None:
    """The vector in the tests of the reference libraries: https://github.com/standard-webhooks/standard-webhooks."""
    signed = b'msg_p5jXN8AQM9LWM0D4loKWxJek.1614265330.{"test": 2432232314}'
    signature = webhooks._signature("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", signed)
    assert signature == "g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_waits_grow_up_to_hours() -> None:
    for attempt, seconds in [(1, 5), (2, 20), (3, 80), (7, 4 * 3600), (1000, 4 * 3600)]:
        waits = [webhooks.wait_seconds(attempt) for _ in range(50)]
        assert 0.8 * seconds <= min(waits) < max(waits) <= 1.2 * seconds
