"""Compares transcription through the gateway with faster-whisper (speed) and with transformers (words and their times).

faster-whisper runs the weights that the default model is built from, in int8, greedily, on the same cores and the same
files, and takes turns with the gateway in each round. For eight recordings at once it runs both as one worker on all
cores and as a worker for each core; ratios are to the better of the two. Ratios are medians of the rounds' ratios.

Word errors count on spoken forms (`benchmarks.spoken_forms`). transformers runs the same weights in fp32 on PyTorch.
"""

import contextlib
import itertools
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import httpx

from benchmarks.deployment import deploy, only
from benchmarks.models import SPEECH_MODEL, TRANSCRIPTION_MODEL
from benchmarks.sound_recordings import Recording, packaged_reading, passages, speak, transcribe
from benchmarks.spoken_forms import start_differences, word_errors
from benchmarks.tables import Column, Table, Threshold, Value
from benchmarks.timings import percentile
from benchmarks.whisper_peer import FasterWhisper, PeerMissing, faster_whisper
from benchmarks.whisper_reference import transformers_whisper

OURS = "Tritonic"
PEER_ALL, PEER_EACH = "faster-whisper, one worker on all cores", "faster-whisper, a worker for each core"
SHORT, LONG, EIGHT = "10 s alone", "45 s alone", "8 at once"
TARGETS = {SHORT: 1.0, LONG: 1.0, EIGHT: 1.5}
SHORT_SECONDS, LONG_SECONDS = 10, 45
KOKORO = "kokoro-82m"
KOKORO_VOICES = ("heart", "george", "michael")
MAX_WORD_ERRORS, MIN_STARTS, MAX_START_DIFFERENCE = 0.5, 95.0, 0.1

Transcribe = Callable[[Sequence[Recording]], tuple[float, list[str]]]
"""Transcribes recordings at once; returns the seconds and the texts."""


@dataclass(frozen=True, slots=True)
class Row:
    """Word errors of three systems on one recording, and our starts of words minus transformers'."""

    recording: Recording
    words: int
    ours: int
    transformers: int
    peer: int | None
    starts: list[float]


def through_gateway(http: httpx.Client) -> Transcribe:
    """Transcribe with a request for each recording, all at once."""

    def run_all(recordings: Sequence[Recording]) -> tuple[float, list[str]]:
        files = [recording.wav() for recording in recordings]
        started = time.perf_counter()
        with ThreadPoolExecutor(len(files)) as pool:
            answers = list(pool.map(lambda file: transcribe(http, TRANSCRIPTION_MODEL, file), files))
        return time.perf_counter() - started, [answer["text"] for answer in answers]

    return run_all


def by_peer(peer: FasterWhisper, files: Mapping[str, Path], *, alone: bool) -> Transcribe:
    """Transcribe with faster-whisper; `files` are the recordings by name."""
    return lambda recordings: peer.transcribe([files[each.name] for each in recordings], alone=alone)


def spoken_recordings(http: httpx.Client, count: int) -> tuple[list[Recording], list[Recording]]:
    """Return passages of a book that the default voice reads: `count` short and `count` long ones."""
    found = []
    for seconds in (SHORT_SECONDS, LONG_SECONDS):
        texts = itertools.islice(passages(0.9 * seconds), count)
        found.append(
            [
                Recording(f"{SPEECH_MODEL}-{seconds}-{number}", speak(http, SPEECH_MODEL, text), text)
                for number, text in enumerate(texts, 1)
            ]
        )
    return found[0], found[1]


def kokoro_recordings(http: httpx.Client, skipped: int) -> list[Recording]:
    """Return short passages after the first `skipped`, each read by another voice of Kokoro."""
    texts = itertools.islice(passages(0.9 * SHORT_SECONDS), skipped, None)
    return [
        Recording(f"kokoro-{voice}", speak(http, KOKORO, text, voice), text)
        for voice, text in zip(KOKORO_VOICES, texts, strict=False)
    ]


def measure(
    systems: Mapping[str, Transcribe], loads: Mapping[str, Sequence[Recording]], rounds: int
) -> tuple[dict[str, dict[str, list[float]]], dict[str, dict[str, str]]]:
    """Return audio seconds a second of each round by load and system, and the last texts by system and recording.

    A round of the loads that are alone comes before, and is not returned.
    """
    rates: dict[str, dict[str, list[float]]] = {load: {} for load in loads}
    texts: dict[str, dict[str, str]] = {name: {} for name in systems}
    for number in range(rounds + 1):
        order = list(systems)[:: 1 if number % 2 else -1]
        for load, recordings in loads.items():
            if number == 0 and len(recordings) > 1:
                continue
            for name in order:
                if name == PEER_EACH and len(recordings) == 1:
                    continue
                seconds, found = systems[name](recordings)
                if number:
                    rate = sum(recording.seconds for recording in recordings) / seconds
                    rates[load].setdefault(name, []).append(rate)
                    texts[name] |= {each.name: text for each, text in zip(recordings, found, strict=True)}
    return rates, texts


def compare(http: httpx.Client, recordings: Sequence[Recording], peer_texts: Mapping[str, str]) -> list[Row]:
    """Return the word errors of each recording, and the differences of the starts of its words."""
    ours = []
    for recording in recordings:
        wav = recording.wav()
        plain = transcribe(http, TRANSCRIPTION_MODEL, wav)["text"]
        fields = {"response_format": "verbose_json", "timestamp_granularities[]": "word"}
        words = transcribe(http, TRANSCRIPTION_MODEL, wav, **fields)["words"]
        ours.append((plain, [(word["word"], word["start"]) for word in words]))
    rows = []
    with transformers_whisper() as reference:
        for recording, (text, words) in zip(recordings, ours, strict=True):
            theirs = reference(recording.samples)
            peer = peer_texts.get(recording.name)
            errors, count = word_errors(recording.text, text)
            rows.append(
                Row(
                    recording,
                    count,
                    errors,
                    word_errors(recording.text, theirs.text)[0],
                    None if peer is None else word_errors(recording.text, peer)[0],
                    start_differences(theirs.words, words),
                )
            )
    return rows


def speed_table(
    rates: Mapping[str, Mapping[str, list[float]]], notes: Sequence[str], installed: dict[str, str]
) -> Table:
    """Return the rates, and our ratio to the better configuration of the peer for each load."""
    rows: list[tuple[Value, ...]] = []
    thresholds = []
    for load, systems in rates.items():
        medians = {name: statistics.median(values) for name, values in systems.items()}
        peers = [name for name in medians if name != OURS]
        ratios = None
        if peers:
            best = max(peers, key=medians.__getitem__)
            ratios = [ours / theirs for ours, theirs in zip(systems[OURS], systems[best], strict=True)]
            ratio = statistics.median(ratios)
            thresholds.append(Threshold(f"audio seconds/s, {load} ÷ faster-whisper", ratio, TARGETS[load], digits=2))
        for name, rate in medians.items():
            own = name == OURS and ratios is not None
            rows.append((load, name, rate, *((statistics.median(ratios or ()), ratios) if own else (None, None))))
    return Table(
        "Audio seconds transcribed a second",
        (
            Column("recordings"),
            Column("system"),
            Column("rate", "s/s", 1),
            Column("÷ the better faster-whisper", digits=2),
            Column("rounds", digits=2),
        ),
        rows,
        tuple(notes),
        thresholds=tuple(thresholds),
        versions={"faster-whisper": installed["faster-whisper"]} if "faster-whisper" in installed else {},
        details={"rounds": rates, "installed": {"faster-whisper": installed}},
    )


def words_table(rows: Sequence[Row], notes: Sequence[str]) -> Table:
    """Return the word errors of each recording and of all, with the starts of the words."""
    starts = [abs(difference) for row in rows for difference in row.starts]
    words = sum(row.words for row in rows)
    ours, theirs = (
        100 * sum(counts) / words for counts in zip(*((row.ours, row.transformers) for row in rows), strict=True)
    )
    near = _share_near(starts)
    cells: list[tuple[Value, ...]] = [
        (
            row.recording.name,
            row.recording.seconds,
            row.words,
            row.ours,
            row.transformers,
            row.peer,
            1000 * percentile([abs(each) for each in row.starts], 0.5) if row.starts else None,
            _share_near([abs(each) for each in row.starts]) if row.starts else None,
        )
        for row in rows
    ]
    return Table(
        "Word errors, and the starts of words compared with transformers' in fp32",
        (
            Column("recording"),
            Column("length", "s", 1),
            Column("words"),
            Column("errors of Tritonic"),
            Column("of transformers, fp32"),
            Column("of faster-whisper, int8"),
            Column("difference of the starts p50", "ms"),
            Column("starts within 0.1 s", "%", 1),
        ),
        cells,
        (
            f"Of {words} words, Tritonic has {ours:.2f} % wrong, transformers {theirs:.2f} %. "
            f"{len(starts)} words were compared by their starts.",
            *notes,
        ),
        thresholds=(
            Threshold(
                "word error rate minus transformers' in fp32", ours - theirs, MAX_WORD_ERRORS, "at most", "points", 2
            ),
            Threshold("starts of words within 0.1 s of transformers'", near, MIN_STARTS, unit="%", digits=1),
        ),
        details={"starts": {row.recording.name: row.starts for row in rows}},
    )


def _share_near(differences: Sequence[float]) -> float:
    """Return the percentage of differences of at most 0.1 s, with the last digit's rounding."""
    return 100 * sum(each <= MAX_START_DIFFERENCE + 1e-6 for each in differences) / len(differences)


def run(repository: Path, rounds: int, cache: Path, work: Path, *, quick: bool = False) -> list[Table]:
    """Start the gateway and faster-whisper, measure, and return the tables. `quick` takes half of the recordings."""
    has_kokoro = (repository / KOKORO / "config.pbtxt").is_file()
    models = (TRANSCRIPTION_MODEL, SPEECH_MODEL, *([KOKORO] if has_kokoro else []))
    notes, installed = [], {}
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(deploy(stack.enter_context(only(repository, models)), TRANSCRIPTION_MODEL))
        http = stack.enter_context(httpx.Client(base_url=server.gateway_url, timeout=600, trust_env=False))
        short, long = spoken_recordings(http, 3)
        short, long = [packaged_reading("beckett"), *short], [packaged_reading("two_cities"), *long]
        files = {}
        for recording in [*short, *long]:
            files[recording.name] = work / f"{recording.name}.wav"
            files[recording.name].write_bytes(recording.wav())
        systems = {OURS: through_gateway(http)}
        peer_stack = stack.enter_context(contextlib.ExitStack())
        try:
            peer = peer_stack.enter_context(faster_whisper(cache, work))
            systems |= {PEER_ALL: by_peer(peer, files, alone=True), PEER_EACH: by_peer(peer, files, alone=False)}
            installed = peer.installed
        except PeerMissing as reason:
            notes.append(f"{reason}.")
        rates, texts = measure(systems, {SHORT: short[:1], LONG: long[:1], EIGHT: [*short, *long]}, rounds)
        peer_stack.close()
        compared = [*short[:2], *long[:2]] if quick else [*short, *long]
        missing = [] if has_kokoro else [f"{KOKORO} is not built, so that no recordings of its voices are among these."]
        compared += kokoro_recordings(http, len(short)) if has_kokoro else []
        rows = compare(http, compared, texts.get(PEER_ALL, {}))
    return [speed_table(rates, notes, installed), words_table(rows, missing)]
