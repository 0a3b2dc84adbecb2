"""A bound on open requests, and the shares that callers have of it."""

import random
from contextlib import AbstractContextManager

import pytest

from gateway.errors import QueueFull
from gateway.models.admission import Admission
from gateway.settings import Settings


class OpenSlots:
    """A model's places; who holds them is remembered."""

    def __init__(self, bound: int) -> None:
        self.admission = Admission(bound)
        self.held: dict[str, list[AbstractContextManager[None]]] = {}

    def ask(self, caller: str, model: str = "m") -> bool:
        slot = self.admission.open(model, caller)
        try:
            slot.__enter__()
        except QueueFull as full:
            assert full.retry_after and full.status == 429 and full.code == "overloaded"
            return False
        self.held.setdefault(caller, []).append(slot)
        return True

    def take_all(self, caller: str) -> int:
        while self.ask(caller):
            pass
        return len(self.held.get(caller, []))

    def leave(self, caller: str) -> None:
        self.held[caller].pop().__exit__(None, None, None)


@pytest.mark.parametrize(("bound", "most"), [(5, 4), (10, 8), (100, 80), (1024, 820), (2048, 1639)])
def test_a_single_caller_leaves_a_fifth_of_the_slots(bound: int, most: int) -> None:
    house = OpenSlots(bound)
    assert house.take_all("greedy") == most
    assert house.ask("somebody")
    assert Admission(bound).max_per_caller == most


@pytest.mark.parametrize("callers", [1, 2, 3, 5, 20])
def test_there_is_always_room_for_one_more(callers: int) -> None:
    """Callers who take turns have the same, and together leave the part that the rule says."""
    bound = 1000
    house = OpenSlots(bound)
    names = [f"caller {number}" for number in range(callers)]
    while sum(house.ask(name) for name in names):
        pass
    counts = [len(house.held[name]) for name in names]
    assert max(counts) - min(counts) <= 1
    assert all(abs(count - 4 * bound / (1 + 4 * callers)) <= 4 for count in counts)
    assert house.ask("the next")


def test_shares_become_equal_as_requests_end() -> None:
    house = OpenSlots(100)
    assert house.take_all("first") == 80
    house.take_all("second")
    chance = random.Random(1)
    for _ in range(3000):
        # An answer of one of them ends, whoever's it is, and both ask for more at once, the first much more often.
        ends = chance.choice(["first"] * len(house.held["first"]) + ["second"] * len(house.held["second"]))
        house.leave(ends)
        for asks in ("first", "first", "first", "second"):
            house.ask(asks)
    assert abs(len(house.held["first"]) - 44) <= 4 and abs(len(house.held["second"]) - 44) <= 4


def test_the_bound_holds_for_many_callers() -> None:
    house = OpenSlots(10)
    assert sum(house.ask(f"caller {number}") for number in range(50)) == 10
    house.leave("caller 3")
    assert house.ask("caller 99") and not house.ask("caller 100")


def test_models_have_slots_of_their_own() -> None:
    house = OpenSlots(5)
    house.take_all("greedy")
    assert house.ask("greedy", model="another")


def test_all_slots_are_released() -> None:
    house = OpenSlots(5)
    for _ in range(100):
        house.take_all("greedy")
        while house.held["greedy"]:
            house.leave("greedy")
    assert house.take_all("greedy") == 4
    (model,) = house.admission._models.values()
    assert (model.open, dict(model.by_caller)) == (4, {"greedy": 4})


def test_a_failure_releases_its_slot() -> None:
    admission = Admission(1)
    for _ in range(3):
        with pytest.raises(RuntimeError), admission.open("m", "a"):
            raise RuntimeError


def test_by_default_one_caller_may_stream_a_thousand_answers() -> None:
    house = OpenSlots(Settings().model_requests)
    assert house.take_all("one") >= 1024 + 512
