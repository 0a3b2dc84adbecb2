"""faster-whisper in a process of its own, with the Python of its environment: no other module of the project.

`python faster_whisper_worker.py MODEL_FOLDER CORES` reads JSON lines `{"files": [...], "alone": true}` and writes, for
each, `{"seconds": …, "texts": [...]}`. The files are transcribed at once. The model runs in int8, greedy, and writes
timestamps, as it does by default and as the gateway's model does. With `"alone": false` each core has a worker with one
thread; otherwise one worker has all cores.
"""

import json
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor


def main() -> None:
    """Serve until standard input ends."""
    lines = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # output of libraries must not mix with the result lines
    from faster_whisper import WhisperModel

    folder, cores = sys.argv[1], int(sys.argv[2])

    def load(threads: int, workers: int) -> WhisperModel:
        return WhisperModel(folder, device="cpu", compute_type="int8", cpu_threads=threads, num_workers=workers)

    models = {True: load(cores, 1), False: load(1, cores)}
    print("ready", file=lines, flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        model = models[request["alone"]]

        def transcribe(path: str, model: WhisperModel = model) -> str:
            segments, _ = model.transcribe(
                path,
                language="en",
                beam_size=1,
                temperature=0.0,
                condition_on_previous_text=False,
            )
            return "".join(segment.text for segment in segments)

        started = time.perf_counter()
        with ThreadPoolExecutor(len(request["files"])) as pool:
            texts = list(pool.map(transcribe, request["files"]))
        print(json.dumps({"seconds": time.perf_counter() - started, "texts": texts}), file=lines, flush=True)


if __name__ == "__main__":
    main()
