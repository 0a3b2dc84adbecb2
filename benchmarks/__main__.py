"""Measure Tritonic on this machine: `tritonic bench`, `make bench`, `python -m benchmarks`."""

import argparse
import os
import signal
import subprocess
import sys
import textwrap
import time
import traceback
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.models import CHAT_MODEL
from benchmarks.registry import BENCHMARKS, RunOptions

HERE = Path(__file__).parent
DEFAULT_REPOSITORY = Path(os.environ.get("TRITONIC_REPOSITORY", "model_repository"))
QUICK = ("direct", "gateway", "alone", "proxies")
"""The parts of a quick look that names none."""
ENDING = (signal.SIGINT, signal.SIGTERM)
ABOUT = """\
Measure Tritonic on this machine. Each part starts what it needs (Triton, the gateway, peers), lets the ways that
it compares take turns, and writes NAME.md, NAME.json and NAME.png; README.md and summary.json hold what was
wanted next to what was found. docs/benchmarks.md says how to read them.
"""
STATUS = """\
A part that fails is reported and does not keep the others from running. Exit status: 0 where every part was
measured, whatever it found; 1 where one failed; 2 where the command was not understood.
"""


def parser() -> argparse.ArgumentParser:
    """The arguments."""
    lines = [
        line
        for name, part in BENCHMARKS.items()
        for line in textwrap.wrap(part.description, 96, initial_indent=f"  {name:<12}", subsequent_indent=" " * 14)
    ]
    made = argparse.ArgumentParser(
        prog="tritonic bench",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description=f"{ABOUT}\nparts, all of them where none is named:\n" + "\n".join(lines),
        epilog=STATUS,
    )
    made.add_argument("parts", nargs="*", metavar="PART", help="what to measure")
    made.add_argument("--quick", action="store_true", help=f"a look of minutes: one round of {', '.join(QUICK)}")
    made.add_argument("--rounds", type=_positive, help="how often compared ways take turns (mostly 3; quick: 1)")
    made.add_argument("--results", type=Path, default=HERE / "results", help="folder for what is found")
    made.add_argument("--repository", type=Path, default=DEFAULT_REPOSITORY, help="the model repository (%(default)s)")
    made.add_argument("--model", default=CHAT_MODEL, help="the folder of the model that chats (%(default)s)")
    made.add_argument("--gguf", type=Path, help="its weights for llama.cpp; default: made for the default model")
    made.add_argument(
        "--peer",
        action="append",
        default=[],
        metavar="NAME=[MODEL@]URL",
        help="a running OpenAI-compatible server, for the part peers; named Tritonic it replaces ours",
    )
    return made


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of rounds")
    return int(text)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what was asked for; the exit status. SIGTERM ends it like Ctrl-C."""
    before = {each: signal.signal(each, _interrupt) for each in ENDING}
    try:
        return _main(arguments)
    except KeyboardInterrupt:
        print("Ended before all was measured; what was found until then is kept.", file=sys.stderr)
        return 130
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def _main(arguments: Sequence[str] | None) -> int:
    reading = parser()
    asked = reading.parse_args(arguments)
    if unknown := [name for name in asked.parts if name not in BENCHMARKS]:
        reading.error(f"there is no part {unknown[0]}; parts: {', '.join(BENCHMARKS)}")
    names = list(dict.fromkeys(asked.parts)) or list(QUICK if asked.quick else BENCHMARKS)
    if asked.rounds and (without := [name for name in names if BENCHMARKS[name].rounds is None]):
        said = f"--rounds says nothing to {' and '.join(without)}: no ways take turns there"
        if without == names:
            reading.error(said)
        print(f"{said}.", file=sys.stderr)
    for each in asked.peer:
        from benchmarks.peers import parse_peer

        try:
            parse_peer(each)
        except ValueError as error:
            reading.error(f"--peer: {error}")
    asked.results.mkdir(parents=True, exist_ok=True)
    if any(BENCHMARKS[name].needs_models for name in names):
        _provide(asked.repository)
        if asked.model != CHAT_MODEL and not (asked.repository / asked.model / "config.pbtxt").is_file():
            reading.error(f"--model: there is no model {asked.model} in {asked.repository}")
    if len(names) > 1:
        return _each(names, asked)
    from builders.packaged_gguf import cache_folder

    work = asked.results / "work"
    work.mkdir(exist_ok=True)
    rounds = asked.rounds or (1 if asked.quick else BENCHMARKS[names[0]].rounds or 1)
    plan = RunOptions(
        asked.repository.resolve(),
        asked.model,
        rounds,
        asked.quick,
        asked.gguf,
        cache_folder(),
        work.resolve(),
        tuple(asked.peer),
    )
    return _one(names[0], plan, asked.results)


def _provide(repository: Path) -> None:
    """Build the default models that the repository lacks. What cannot be built is missed by the parts that need it."""
    from tritonic.default_models import default_models

    for default in default_models(repository):
        old = None if default.is_missing(repository) else default.why_outdated(repository)
        if default.is_missing(repository) or (old and not old.is_customized):
            print(f"Building the default model {default.name}; this is done once.", file=sys.stderr)
            subprocess.run(default.command, stdout=sys.stderr)


def _each(names: Sequence[str], asked: argparse.Namespace) -> int:
    """Run each part in a process of its own: none finds what another left in memory, nor ends another."""
    from benchmarks.result_files import read_failures, write_summary

    results: Path = asked.results
    options = ["--results", results, "--repository", asked.repository, "--model", asked.model]
    options += ["--gguf", asked.gguf] if asked.gguf else []
    options += ["--quick"] if asked.quick else []
    options += [f"--peer={each}" for each in asked.peer]
    failed = []
    for name in names:
        rounds = ["--rounds", asked.rounds] if asked.rounds and BENCHMARKS[name].rounds else []
        status = _run([sys.executable, "-m", "benchmarks", name, *map(str, [*options, *rounds])])
        if status:
            failed.append(name)
        if status < 0 or status > 2:
            write_summary(
                results, tuple(BENCHMARKS), read_failures(results) | {name: f"its process ended with {status}"}
            )
    print((results / "README.md").read_text(), flush=True)
    if failed:
        print(f"Failed: {', '.join(failed)}. The reasons stand above.", file=sys.stderr)
    return 1 if failed else 0


def _run(command: Sequence[str]) -> int:
    """Run a part's process. Whatever ends this one ends that one too, and with it what it started."""
    child = subprocess.Popen(command)
    try:
        return child.wait()
    except KeyboardInterrupt:
        child.terminate()
        child.wait(120)
        raise


def _interrupt(*_: object) -> None:
    for each in ENDING:
        signal.signal(each, signal.SIG_IGN)  # what is being ended must not be ended halfway
    raise KeyboardInterrupt


def _one(name: str, plan: RunOptions, results: Path) -> int:
    from benchmarks.machine import machine, versions
    from benchmarks.result_files import RunConditions, read_failures, write_results, write_summary

    began, now = time.monotonic(), datetime.now(UTC)
    rounds = plan.rounds if BENCHMARKS[name].rounds else None
    under = RunConditions(f"{now:%Y-%m-%d %H:%M} UTC", machine(), versions(), rounds, plan.quick)
    print(f"{name}: {BENCHMARKS[name].description} …", file=sys.stderr, flush=True)
    failed = read_failures(results)
    try:
        tables = BENCHMARKS[name].run(plan)
    except (Exception, SystemExit) as error:
        traceback.print_exception(error)
        failed[name] = _reason(error)
        write_summary(results, tuple(BENCHMARKS), failed)
        print(f"{name} failed: {failed[name]}", file=sys.stderr)
        return 1
    failed.pop(name, None)
    print(write_results(results, name, tables, under, time.monotonic() - began), flush=True)
    write_summary(results, tuple(BENCHMARKS), failed)
    return 0


def _reason(error: BaseException) -> str:
    """The error in a line, without the folders of this machine."""
    text = str(error).strip().splitlines()
    line = f"{type(error).__name__}: {text[0] if text else ''}"[:300]
    return line.replace(str(Path.home()), "~").replace(str(Path.cwd()), ".")


if __name__ == "__main__":
    sys.exit(main())
