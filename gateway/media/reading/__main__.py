"""Reads one file.

In: a line of JSON (`task`, `memory` in bytes, `seconds`, and what the task takes), then the file. Out: a line of JSON
with `refusal`, null or why the file cannot be used, then the text as UTF-8 or the samples.
"""

import json
import os
import resource
import sys
from typing import Any

from gateway.media.unusable import Unusable


def main() -> None:
    """Read the file that stdin brings."""
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what libraries print is no part of the answer
    task = json.loads(sys.stdin.buffer.readline())
    limit(task["memory"], task["seconds"])
    refusal, body = None, b""
    try:
        body = read(task, sys.stdin.buffer.read())
    except Unusable as why:
        refusal = str(why)
    except MemoryError:
        refusal = f"the file needs more than {task['memory'] // 2**20} MiB of memory to be read"
    except RecursionError:
        refusal = "the file is nested too deeply"
    except Exception:  # whatever a parser raises about a file that is not as it should be
        refusal = "the file is broken"
    out.write(json.dumps({"refusal": refusal}).encode() + b"\n" + body)
    out.close()
    os._exit(0)  # nothing that a parser left behind may hold the answer up


def limit(memory: int, seconds: float) -> None:
    """Take no more than `memory` bytes of addresses and `seconds` of a core, and give way to everything else."""
    os.nice(5)
    cpu = int(seconds) + 2
    for what, most in ((resource.RLIMIT_AS, memory), (resource.RLIMIT_CPU, cpu), (resource.RLIMIT_CORE, 0)):
        hard = resource.getrlimit(what)[1]
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(what, (most, most))


def read(task: dict[str, Any], data: bytes) -> bytes:
    """Do the task. Raises `Unusable`, and whatever the parsers raise."""
    if task["task"] == "sound":
        from gateway.media.reading import sound

        return sound.samples(data, task["container"], max_seconds=task["max_seconds"])
    from gateway.media.reading import documents

    return documents.text(data, task["media_type"], markup=task["markup"], most=task["max_characters"]).encode()


if __name__ == "__main__":
    main()
