"""The process that forks a child for each file that is looked at or read, so that the child has its libraries at once.

In: on stdin, a socket that keeps messages apart, messages of JSON. One with a `task` brings the end of a stream socket
and is a new job (`gateway.media.decoders.child_process`); one with `kill` ends one. Out, by the same way: `ended`,
the number of a
job, its wait `status` and the `seconds` of a core that it took. It ends, and with it all its children, when stdin does.

It never sees a byte of the files themselves.
"""

import gc
import json
import os
import select
import signal
import socket
from typing import Any

from gateway.media.decoders import child_process, preload

_MAX_MESSAGE_BYTES = 64 * 1024
"""Bytes of a message."""


def main() -> None:
    """Serve jobs until the gateway has gone."""
    control = socket.socket(fileno=os.dup(0))
    woken, wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # meant for the gateway, which closes stdin when it ends
    gc.disable()
    jobs: dict[int, int] = {}
    poll = select.poll()
    poll.register(control, select.POLLIN)
    poll.register(woken, select.POLLIN)
    while True:
        for ready, _ in poll.poll():
            if ready == woken:
                os.read(woken, 4096)
                _reap(control, jobs)
            elif not _handle_message(control, jobs):
                for child in jobs.values():
                    os.kill(child, signal.SIGKILL)
                return


def _handle_message(control: socket.socket, jobs: dict[int, int]) -> bool:
    """Take one message; False where there will be no more. `jobs` are the children's process ids, by number."""
    message, descriptors, _, _ = socket.recv_fds(control, _MAX_MESSAGE_BYTES, 1)
    if not message:
        return False
    asked: dict[str, Any] = json.loads(message)
    if "kill" in asked:
        if child := jobs.get(asked["kill"]):  # not reaped yet, so the id is still its own
            os.kill(child, signal.SIGKILL)
        return True
    if preload.preload(asked["task"]):
        gc.collect()
        gc.freeze()  # what children only read is not copied for them
    child = os.fork()
    if not child:
        try:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            gc.enable()
            child_process.run(asked, descriptors[0])
        finally:
            os._exit(1)
    os.close(descriptors[0])
    jobs[asked["number"]] = child
    return True


def _reap(control: socket.socket, jobs: dict[int, int]) -> None:
    while jobs:
        child, status, usage = os.wait4(-1, os.WNOHANG)
        if not child:
            return
        number = next(number for number, process in jobs.items() if process == child)
        del jobs[number]
        ended = {"ended": number, "status": status, "seconds": usage.ru_utime + usage.ru_stime}
        control.send(json.dumps(ended).encode())


if __name__ == "__main__":
    main()
