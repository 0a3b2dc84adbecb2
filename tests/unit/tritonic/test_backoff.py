from tritonic.backoff import Backoff


def test_delays_double_up_to_the_limit():
    backoff = Backoff()
    assert [backoff.delay(0) for _ in range(7)] == [1, 2, 4, 8, 16, 30, 30]


def test_a_healthy_run_begins_anew():
    backoff = Backoff(healthy_after=60)
    assert [backoff.delay(seconds) for seconds in (0, 59.9, 60, 0)] == [1, 2, 1, 2]
