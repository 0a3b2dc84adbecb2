"""Measures the default voice through the gateway: how soon and how fast it speaks, and how well it is understood.

The bare loop is the library of the default voice, hibari, with the installed network, in this process: each request is
a loop over its sentences, on a thread of its own. It runs with one thread of onnxruntime and with one for each core;
ratios are to the faster of the two. Both speak the same sentences, and take turns in each round.
"""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from os import sched_getaffinity
from pathlib import Path

import httpx
import psutil

from benchmarks.deployment import Deployment, deploy, only
from benchmarks.models import SPEECH_MODEL, TRANSCRIPTION_MODEL
from benchmarks.peer_programs import cpu_seconds
from benchmarks.sound_recordings import Recording, speak, transcribe
from benchmarks.spoken_forms import word_errors
from benchmarks.tables import Column, Table, Threshold, Value
from benchmarks.timings import percentile

OURS = "Tritonic"
LOADS = (1, 4)
SENTENCES = Path(__file__).parent / "data" / "sentences.tsv"
"""Sentences with numbers, dates, abbreviations and names, and the words that a reader says."""
RATE = 24_000
SENTENCES_PER_REQUEST = 8
STREAMED_SECONDS = 60.0
MAX_FIRST_SECONDS, MAX_FIRST_SHARE, MAX_RATIO, MIN_WORDS, MAX_CPU = 0.3, 0.35, 1.1, 95.0, 5.0

Speak = Callable[[Sequence[str]], float]
"""Speaks sentences, and returns the seconds of sound."""


@dataclass(frozen=True, slots=True)
class Streamed:
    """One request: seconds to the first byte and to the last, and the seconds of sound."""

    first: float
    whole: float
    sound: float


def read_sentences() -> list[tuple[str, str]]:
    """Return the sentences as they are written and as they are spoken."""
    lines = SENTENCES.read_text(encoding="utf-8").splitlines()
    return [(written, spoken) for written, spoken in (line.split("\t") for line in lines)]


def stream(http: httpx.Client, text: str) -> Streamed:
    """Let the default voice speak as PCM. Raises `RuntimeError` if it refuses."""
    body = {"model": SPEECH_MODEL, "input": text, "response_format": "pcm"}
    started, first, size = time.perf_counter(), 0.0, 0
    with http.stream("POST", "/v1/audio/speech", json=body) as response:
        if response.status_code != 200:
            raise RuntimeError(f"{SPEECH_MODEL} did not speak: {response.read().decode()}")
        for data in response.iter_raw():
            first = first or time.perf_counter() - started
            size += len(data)
    return Streamed(first, time.perf_counter() - started, size / 2 / RATE)


def latency_table(http: httpx.Client, sentences: Sequence[str], requests: int) -> Table:
    """Measure requests of four sentences, one after the other."""
    texts = [" ".join(sentences[(start + number) % len(sentences)] for number in range(4)) for start in range(requests)]
    found = [stream(http, text) for text in texts]
    first = statistics.median(each.first for each in found)
    share = statistics.median(each.first / each.whole for each in found)
    return Table(
        f"Four sentences as PCM, {requests} requests one after the other",
        (
            Column("first byte p50", "ms"),
            Column("first byte p99", "ms"),
            Column("whole p50", "ms"),
            Column("sound p50", "s", 1),
            Column("first byte ÷ whole p50", digits=2),
        ),
        [
            (
                1000 * first,
                1000 * percentile([each.first for each in found], 0.99),
                1000 * statistics.median(each.whole for each in found),
                statistics.median(each.sound for each in found),
                share,
            )
        ],
        thresholds=(
            Threshold(
                "first byte of the default voice, p50 alone", 1000 * first, 1000 * MAX_FIRST_SECONDS, "at most", "ms", 0
            ),
            Threshold("first byte ÷ whole synthesis of four sentences", share, MAX_FIRST_SHARE, "at most", digits=2),
        ),
        details={"requests": [(each.first, each.whole, each.sound) for each in found]},
    )


def bare_loop(network: Path, threads: int) -> Speak:
    """Return a loop of hibari's library over sentences, with `threads` threads of onnxruntime."""
    from hibari import Hibari

    voice = Hibari(model=str(network), threads=threads)
    return lambda sentences: sum(len(voice(sentence, seed=0)) for sentence in sentences) / RATE


def measure_rates(
    systems: Mapping[str, Speak], sentences: Sequence[str], rounds: int
) -> dict[int, dict[str, list[float]]]:
    """Return the seconds a second of sound (the real-time factor) of each round, by load and system."""
    found: dict[int, dict[str, list[float]]] = {load: {name: [] for name in systems} for load in LOADS}
    for number in range(rounds + 1):
        order = list(systems)[number % len(systems) :] + list(systems)[: number % len(systems)]
        for load in LOADS:
            requests = [
                [sentences[(start + 7 * number + offset) % len(sentences)] for offset in range(SENTENCES_PER_REQUEST)]
                for start in range(0, 8 * SENTENCES_PER_REQUEST, SENTENCES_PER_REQUEST)
            ]  # eight requests in each measurement, `load` of them at once
            for name in order:
                started = time.perf_counter()
                with ThreadPoolExecutor(load) as pool:
                    sound = sum(pool.map(systems[name], requests))
                if number:  # the first round warms up
                    found[load][name].append((time.perf_counter() - started) / sound)
    return found


def rates_table(found: Mapping[int, Mapping[str, list[float]]]) -> Table:
    """Return the real-time factors, and our ratio to the faster of the bare loops."""
    rows: list[tuple[Value, ...]] = []
    thresholds = []
    for load, systems in found.items():
        medians = {name: statistics.median(values) for name, values in systems.items()}
        best = min((name for name in medians if name != OURS), key=medians.__getitem__)
        ratios = [ours / theirs for ours, theirs in zip(systems[OURS], systems[best], strict=True)]
        ratio = statistics.median(ratios)
        for name, factor in medians.items():
            rows.append((load, name, factor, 1 / factor, *((ratio, ratios) if name == OURS else (None, None))))
        thresholds.append(
            Threshold(f"real-time factor, {load} at once ÷ a bare loop", ratio, MAX_RATIO, "at most", digits=2)
        )
    return Table(
        f"Requests of {SENTENCES_PER_REQUEST} sentences: seconds of computing for a second of speech",
        (
            Column("requests at once"),
            Column("system"),
            Column("real-time factor", digits=4),
            Column("times real time", digits=1),
            Column("÷ the faster bare loop", digits=2),
            Column("rounds", digits=2),
        ),
        rows,
        thresholds=tuple(thresholds),
        details={"rounds": {str(load): dict(systems) for load, systems in found.items()}},
    )


def understood_table(http: httpx.Client, sentences: Sequence[tuple[str, str]]) -> Table:
    """Let the default voice speak sentences and the default model transcribe them; return the words that differ."""

    def read_back(pair: tuple[str, str]) -> str:
        recording = Recording("", speak(http, SPEECH_MODEL, pair[0]), pair[1])
        return str(transcribe(http, TRANSCRIPTION_MODEL, recording.wav())["text"])

    with ThreadPoolExecutor(4) as pool:
        texts = list(pool.map(read_back, sentences))
    counts = [word_errors(spoken, text) for (_, spoken), text in zip(sentences, texts, strict=True)]
    errors, words = (sum(column) for column in zip(*counts, strict=True))
    share = 100 * (1 - errors / words)
    return Table(
        f"{len(sentences)} sentences spoken, then transcribed by {TRANSCRIPTION_MODEL}: those that come back changed",
        (Column("sentence"), Column("transcript"), Column("words"), Column("wrong")),
        [
            (written, text.strip(), count, wrong)
            for (written, _), text, (wrong, count) in zip(sentences, texts, counts, strict=True)
            if wrong
        ],
        (f"{words} words, {errors} of them wrong, missing or too many: {share:.1f} % come back.",),
        thresholds=(Threshold("words that come back from a transcription", share, MIN_WORDS, unit="%", digits=1),),
        details={"transcripts": texts},
    )


def cpu_table(server: Deployment, http: httpx.Client, sentences: Sequence[str], requests: int) -> Table:
    """Measure the CPU time of the gateway while it streams PCM, which needs no encoder, beside its idle time."""
    gateway = psutil.Process(server.gateway_pid)
    text = " ".join(sentences)  # three to four minutes of speech
    stream(http, sentences[0])
    before, started = cpu_seconds(gateway), time.perf_counter()
    time.sleep(3)
    idle = (cpu_seconds(gateway) - before) / (time.perf_counter() - started)
    before, started = cpu_seconds(gateway), time.perf_counter()
    sound = sum(stream(http, text).sound for _ in range(requests))
    used, seconds = cpu_seconds(gateway) - before, time.perf_counter() - started
    cpu = 1000 * (used - idle * seconds) * STREAMED_SECONDS / sound
    return Table(
        "CPU time of the gateway for streams of PCM",
        (
            Column("speech streamed", "s"),
            Column("CPU time", "ms"),
            Column("of it while idle", "ms"),
            Column(f"for {STREAMED_SECONDS:.0f} s of speech", "ms", 1),
        ),
        [(sound, 1000 * used, 1000 * idle * seconds, cpu)],
        thresholds=(Threshold("gateway's CPU time for 60 s of PCM", cpu, MAX_CPU, "at most", "ms", 1),),
    )


def run(repository: Path, rounds: int, *, quick: bool = False) -> list[Table]:
    """Start the gateway with the default models of sound, measure, and return the tables."""
    sentences = read_sentences()
    written = [sentence for sentence, _ in sentences]
    cores = len(sched_getaffinity(0))
    (network,) = (repository / SPEECH_MODEL / "1").glob("*.onnx")
    with (
        only(repository, (TRANSCRIPTION_MODEL, SPEECH_MODEL)) as served,
        deploy(served, SPEECH_MODEL) as server,
        httpx.Client(base_url=server.gateway_url, timeout=600, trust_env=False) as http,
    ):
        stream(http, written[0])
        systems: dict[str, Speak] = {OURS: lambda texts: stream(http, " ".join(texts)).sound}
        for threads in sorted({1, cores}):
            name = f"a bare loop, onnxruntime with {threads} {'thread' if threads == 1 else 'threads'}"
            systems[name] = bare_loop(network, threads)
        return [
            latency_table(http, written, 8 if quick else 24),
            rates_table(measure_rates(systems, written, rounds)),
            understood_table(http, sentences[:12] if quick else sentences),
            cpu_table(server, http, written, 2 if quick else 8),
        ]
