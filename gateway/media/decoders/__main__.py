"""The fork server: it forks a child for each file, so that the child has its libraries loaded from the start.

Input: JSON messages on stdin, a SOCK_SEQPACKET socket. A message with `task` starts a job, and carries the descriptor
of a stream socket and, for a recording or video, that of its file (`gateway.media.decoders.child_process`). Without a
descriptor, it only loads the libraries of the task. A message with `kill` kills the job of that number.

Output, on the same socket: `ended`, the number of a job, its wait `status`, and its CPU time in `seconds`.

When stdin is closed, the process kills its children and exits.

It never sees the content of files.
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
"""Most bytes of a message."""


def main() -> None:
    """Serve jobs until the gateway closes stdin."""
    control = socket.socket(fileno=os.dup(0))
    woken, wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the gateway, which closes stdin when it ends
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
    """Handle one message. Return False at the end of input. `jobs` maps numbers of jobs to process ids."""
    message, descriptors, _, _ = socket.recv_fds(control, _MAX_MESSAGE_BYTES, 2)
    if not message:
        return False
    request: dict[str, Any] = json.loads(message)
    if "kill" in request:
        if child := jobs.get(request["kill"]):  # not reaped yet, so the process id is not reused
            os.kill(child, signal.SIGKILL)
        return True
    if preload.preload(request["task"]):
        gc.collect()
        gc.freeze()  # the collector would write to memory that is shared with the children
    if not descriptors:
        return True
    child = os.fork()
    if not child:
        try:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            gc.enable()
            child_process.run(request, descriptors)
        finally:
            os._exit(1)
    for descriptor in descriptors:
        os.close(descriptor)
    jobs[request["number"]] = child
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
