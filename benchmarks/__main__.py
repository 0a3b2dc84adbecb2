"""Measures Tritonic on this machine: `tritonic bench`, `make bench`, `python -m benchmarks`."""

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
"""The benchmarks that `--quick` runs when none is named."""
END_SIGNALS = (signal.SIGINT, signal.SIGTERM)
ABOUT = """\
Measure Tritonic on this machine. Each part starts what it needs (Triton, the gateway, peers), measures the systems
that it compares in turns, and writes NAME.md, NAME.json and NAME.png. README.md and summary.json list all targets
with their results. docs/benchmarks.md explains how to read them.
"""
STATUS = """\
A part that fails is reported, and the others still run. Exit status: 0 if every part was measured, whatever the
results; 1 if one failed; 2 for wrong usage.
"""


def make_parser() -> argparse.ArgumentParser:
    """Return the argument parser."""
    lines = [
        line
        for name, part in BENCHMARKS.items()
        for line in textwrap.wrap(part.description, 96, initial_indent=f"  {name:<12}", subsequent_indent=" " * 14)
    ]
    parser = argparse.ArgumentParser(
        prog="tritonic bench",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description=f"{ABOUT}\nparts (default: all):\n" + "\n".join(lines),
        epilog=STATUS,
    )
    parser.add_argument("parts", nargs="*", metavar="PART", help="the parts to run")
    parser.add_argument("--quick", action="store_true", help=f"a few minutes: one round of {', '.join(QUICK)}")
    parser.add_argument("--rounds", type=_positive, help="measured rounds (default: mostly 3; quick: 1)")
    parser.add_argument("--results", type=Path, default=HERE / "results", help="folder for the results")
    parser.add_argument("--repository", type=Path, default=DEFAULT_REPOSITORY, help="model repository (%(default)s)")
    parser.add_argument("--model", default=CHAT_MODEL, help="the folder of the chat model (%(default)s)")
    parser.add_argument("--gguf", type=Path, help="its weights for llama.cpp; default: converted")
    parser.add_argument(
        "--peer",
        action="append",
        default=[],
        metavar="NAME=[MODEL@]URL",
        help="a running OpenAI-compatible server for the part peers; one named Tritonic replaces ours",
    )
    return parser


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of rounds")
    return int(text)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status. SIGTERM ends it like Ctrl-C."""
    previous = {number: signal.signal(number, _interrupt) for number in END_SIGNALS}
    try:
        return _main(arguments)
    except KeyboardInterrupt:
        print("Interrupted. The results of completed parts are stored.", file=sys.stderr)
        return 130
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _main(arguments: Sequence[str] | None) -> int:
    parser = make_parser()
    options = parser.parse_args(arguments)
    if unknown := [name for name in options.parts if name not in BENCHMARKS]:
        parser.error(f"there is no part {unknown[0]}; parts: {', '.join(BENCHMARKS)}")
    names = list(dict.fromkeys(options.parts)) or list(QUICK if options.quick else BENCHMARKS)
    if options.rounds and (without := [name for name in names if BENCHMARKS[name].default_rounds is None]):
        message = f"--rounds does not apply to {' and '.join(without)}: nothing takes turns there"
        if without == names:
            parser.error(message)
        print(f"{message}.", file=sys.stderr)
    for peer in options.peer:
        from benchmarks.peers import parse_peer

        try:
            parse_peer(peer)
        except ValueError as error:
            parser.error(f"--peer: {error}")
    options.results.mkdir(parents=True, exist_ok=True)
    if any(BENCHMARKS[name].needs_models for name in names):
        _build_missing_models(options.repository)
        if options.model != CHAT_MODEL and not (options.repository / options.model / "config.pbtxt").is_file():
            parser.error(f"--model: there is no model {options.model} in {options.repository}")
    if len(names) > 1:
        return _run_each(names, options)
    from builders.packaged_files import cache_folder

    work = options.results / "work"
    work.mkdir(exist_ok=True)
    rounds = options.rounds or (1 if options.quick else BENCHMARKS[names[0]].default_rounds or 1)
    run_options = RunOptions(
        options.repository.resolve(),
        options.model,
        rounds,
        options.quick,
        options.gguf,
        cache_folder(),
        work.resolve(),
        tuple(options.peer),
    )
    return _run_one(names[0], run_options, options.results)


def _build_missing_models(repository: Path) -> None:
    """Build the default models that the repository lacks. If a build fails, the parts that need the model fail."""
    from tritonic.default_models import default_models

    for default in default_models(repository):
        outdated = None if default.is_missing(repository) else default.why_outdated(repository)
        if default.is_missing(repository) or (outdated and not outdated.is_customized):
            print(f"Building the default model {default.name}; this is done once.", file=sys.stderr)
            subprocess.run(default.command, stdout=sys.stderr)


def _run_each(names: Sequence[str], options: argparse.Namespace) -> int:
    """Run each part in a process of its own, so that memory and crashes of one do not affect another."""
    from benchmarks.result_files import read_failures, write_summary

    results: Path = options.results
    arguments = ["--results", results, "--repository", options.repository, "--model", options.model]
    arguments += ["--gguf", options.gguf] if options.gguf else []
    arguments += ["--quick"] if options.quick else []
    arguments += [f"--peer={peer}" for peer in options.peer]
    failed = []
    for name in names:
        rounds = ["--rounds", options.rounds] if options.rounds and BENCHMARKS[name].default_rounds else []
        status = _run([sys.executable, "-m", "benchmarks", name, *map(str, [*arguments, *rounds])])
        if status:
            failed.append(name)
        if status < 0 or status > 2:
            write_summary(
                results, tuple(BENCHMARKS), read_failures(results) | {name: f"its process ended with {status}"}
            )
    print((results / "README.md").read_text(), flush=True)
    if failed:
        print(f"Failed: {', '.join(failed)}. The reasons are above.", file=sys.stderr)
    return 1 if failed else 0


def _run(command: Sequence[str]) -> int:
    """Run a part's process and return its exit status. An interrupt also ends that process and its children."""
    child = subprocess.Popen(command)
    try:
        return child.wait()
    except KeyboardInterrupt:
        child.terminate()
        child.wait(120)
        raise


def _interrupt(*_: object) -> None:
    for number in END_SIGNALS:
        signal.signal(number, signal.SIG_IGN)  # a second signal must not interrupt the cleanup
    raise KeyboardInterrupt


def _run_one(name: str, run_options: RunOptions, results: Path) -> int:
    """Run one part in this process and write its results. Return 1 if it fails, 0 otherwise."""
    from benchmarks.machine import machine, versions
    from benchmarks.result_files import RunConditions, read_failures, write_results, write_summary

    began, now = time.monotonic(), datetime.now(UTC)
    rounds = run_options.rounds if BENCHMARKS[name].default_rounds else None
    conditions = RunConditions(f"{now:%Y-%m-%d %H:%M} UTC", machine(), versions(), rounds, run_options.quick)
    print(f"{name}: {BENCHMARKS[name].description} …", file=sys.stderr, flush=True)
    failed = read_failures(results)
    try:
        tables = BENCHMARKS[name].run(run_options)
    except (Exception, SystemExit) as error:
        traceback.print_exception(error)
        failed[name] = _reason(error)
        write_summary(results, tuple(BENCHMARKS), failed)
        print(f"{name} failed: {failed[name]}", file=sys.stderr)
        return 1
    failed.pop(name, None)
    print(write_results(results, name, tables, conditions, time.monotonic() - began), flush=True)
    write_summary(results, tuple(BENCHMARKS), failed)
    return 0


def _reason(error: BaseException) -> str:
    """Return the error in one line, without the folder names of this machine."""
    lines = str(error).strip().splitlines()
    line = f"{type(error).__name__}: {lines[0] if lines else ''}"[:300]
    return line.replace(str(Path.home()), "~").replace(str(Path.cwd()), ".")


if __name__ == "__main__":
    sys.exit(main())
