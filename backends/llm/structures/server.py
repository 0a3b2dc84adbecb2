"""The fork server: it has read the tokenizer, and forks a process for each structure.

It runs nothing that callers write, and it has one thread: a fork of it takes 2 ms and is safe.
"""

import gc
import json
import os
import signal
import socket

from llguidance import LLTokenizer

from backends.llm.structures.limits import Limits
from backends.llm.structures.messages import ORDER, REFUSED
from backends.llm.structures.process import serve


def main(control: int, settings: int) -> None:
    """Serve the model's process, over the descriptor `control`, until it closes that.

    `settings` is a file: a JSON object, the end of a line, and the tokenizer.
    """
    channel = socket.socket(fileno=control)
    try:
        with open(settings, encoding="utf-8") as file:
            options = json.loads(file.readline())
            tokenizer = LLTokenizer(file.read(), n_vocab=options["vocab_size"], eos_token=options["eos"] or None)
    except Exception as error:  # the library raises bare exceptions too
        channel.send(REFUSED + str(error)[:500].encode())
        return
    limits = Limits(**options["limits"])
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Nobody waits for the processes: the kernel forgets those that have ended.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    gc.collect()
    gc.freeze()  # what is not written to stays common memory
    channel.send(b"ready")
    while True:
        order, files, _, _ = socket.recv_fds(channel, ORDER.size, 2)
        if not order:
            return
        own, text = files
        try:
            if os.fork() == 0:
                channel.close()
                _run(tokenizer, limits, order, socket.socket(fileno=own), text)
        except OSError:
            pass  # no process is to be had: the other end hears that nothing has begun
        os.close(own)
        os.close(text)


def _run(tokenizer: LLTokenizer, limits: Limits, order: bytes, channel: socket.socket, text: int) -> None:
    """Be the process of a structure; never returns."""
    try:
        kind, seconds, niceness = ORDER.unpack(order)
        os.nice(niceness)
        # The library's panics would write what the caller wrote into the log.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        with open(text, encoding="utf-8") as file:
            file.seek(0)
            serve(tokenizer, limits, kind.rstrip(b"\0").decode(), file.read(), channel, seconds)
    finally:
        os._exit(0)
