"""Attackers among the callers of a soak. They repeat the attacks of `tests.attack` at a limited rate.

They run in a process of their own, so that their CPU time does not slow the honest clients down:
`python -m benchmarks.soak.attackers PORT SECONDS SEED` prints the results as JSON.
"""

import argparse
import asyncio
import json
import random
import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from tests.attack.cases import ALL_CASES
from tests.attack.cases.case import AttackCase, Target
from tests.attack.gateways import ATTACKER as ATTACKER
from tests.attack.gateways import SHORT_TIMEOUTS

NUM_ATTACKERS, PAUSE = 3, 0.5
"""Number of parallel attackers, and the pause of each after an attack, in seconds."""
ENVIRONMENT = {
    **{
        name: SHORT_TIMEOUTS[name]
        for name in ("TRITONIC_HEAD_TIMEOUT", "TRITONIC_BODY_TIMEOUT", "TRITONIC_MEDIA_TIMEOUT")
    },
    "TRITONIC_MEDIA_ALLOWED_HOSTS": SHORT_TIMEOUTS["TRITONIC_MEDIA_ALLOWED_HOSTS"],
}
"""Additional gateway settings: attacks must end in time, and must reach the attackers' own servers."""
ALIASES = {"hello": "chat", "slow": "chat", "vectors": "embedding", "sighted": "image"}
"""The model names in the attacks, and the default model that serves each."""


@dataclass(frozen=True, slots=True)
class GatewayAddress:
    """The part of a gateway that attacks use: its address, and the header for a key."""

    address: tuple[str, int]

    def header(self, key: str) -> dict[str, str]:
        """Return the authorization header for `key`."""
        return {"Authorization": f"Bearer {key}"}


@dataclass(slots=True)
class AttackResults:
    """The results of the attacks, by the name of the attack and by the status of the response."""

    attempts: Counter[str] = field(default_factory=Counter)
    statuses: Counter[str] = field(default_factory=Counter)
    megabytes: float = 0.0
    """Bytes sent, in units of 2^20."""
    wrong: list[str] = field(default_factory=list)
    """Attacks with an unexpected response, each as a sentence."""

    def to_json(self) -> str:
        """Return the results as JSON for `from_json`."""
        counts = {"tried": dict(self.attempts), "statuses": dict(self.statuses)}
        return json.dumps({**counts, "megabytes": self.megabytes, "wrong": self.wrong})


def soak_attacks() -> list[AttackCase]:
    """Return the attacks that a soak can run: those that need no other set-up than keys."""
    return [case for case in ALL_CASES if case.in_soak and case.setup == "keys"]


def attack(
    address: tuple[str, int], seconds: float, seed: int, cases: Sequence[AttackCase] | None = None
) -> AttackResults:
    """Attack for `seconds`, and return the results. Attacks that run at the end are completed.

    Without `cases`, the attackers choose from `soak_attacks()`.
    """
    results, lock = AttackResults(), threading.Lock()
    deadline = time.monotonic() + seconds

    def run_attacker(rng: random.Random) -> None:
        while time.monotonic() < deadline:
            case = rng.choice(cases or soak_attacks())
            target = Target(GatewayAddress(address))  # type: ignore[arg-type]  # attacks use no other attribute
            failure = ""
            try:
                case.attack(target)
            except (AssertionError, OSError) as error:
                failure = f"{type(error).__name__}: {error}"
            unexpected = {status: n for status, n in target.statuses.items() if status not in case.statuses}
            with lock:
                results.attempts[case.name] += 1
                results.statuses.update({str(status): n for status, n in target.statuses.items()})
                results.megabytes += target.sent_bytes / 2**20
                if failure or unexpected:
                    results.wrong.append(f"{case.name}: {failure or unexpected} {target.refusals[:1]}"[:400])
            time.sleep(PAUSE)

    threads = [threading.Thread(target=run_attacker, args=(random.Random(seed + n),)) for n in range(NUM_ATTACKERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


async def run_attackers(port: int, seconds: float, seed: int) -> AttackResults:
    """Run the attackers in another process. Raises `RuntimeError` with its last output if that process fails."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "benchmarks.soak.attackers", str(port), str(seconds), str(seed)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        out, error = await process.communicate()
    except asyncio.CancelledError:
        process.kill()
        await process.wait()
        raise
    if process.returncode:
        raise RuntimeError(f"the attackers failed: {error.decode(errors='replace')[-1000:]}")
    return from_json(out)


def from_json(written: bytes) -> AttackResults:
    """Parse the output of `to_json`."""
    document = json.loads(written)
    attempts, statuses = Counter(document["tried"]), Counter(document["statuses"])
    return AttackResults(attempts, statuses, document["megabytes"], document["wrong"])


def main(arguments: Sequence[str] | None = None) -> None:
    """Attack a gateway on this machine. It must accept the attackers' key."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak.attackers", description=__doc__)
    parser.add_argument("port", type=int)
    parser.add_argument("seconds", type=float)
    parser.add_argument("seed", type=int)
    options = parser.parse_args(arguments)
    print(attack(("127.0.0.1", options.port), options.seconds, options.seed).to_json())


if __name__ == "__main__":
    main()
