"""The fork server: it has read the tokenizer, and forks a process for each structure.

It runs nothing that callers write, and it has one thread, so that a fork of it is safe.
"""

import gc
import json
import os
import signal
import socket
import time

from llguidance import LLTokenizer

from backends.llm.structured_outputs.grammar_process import serve_grammar
from backends.llm.structured_outputs.ipc_messages import COMPILE_REQUEST, REJECTED
from backends.llm.structured_outputs.limits import Limits
from backends.llm.structured_outputs.unique_keys import QuoteTokens

_RESTART_PAUSE_SECONDS = 0.1


def main(control: int, settings: int) -> None:
    """Serve the model's process, over the descriptor `control`, until it closes that.

    `settings` is a file: a JSON object, the end of a line, and the tokenizer.
    """
    channel = socket.socket(fileno=control)
    try:
        with open(settings, encoding="utf-8") as file:
            options = json.loads(file.readline())
            tokenizer = LLTokenizer(file.read(), n_vocab=options["vocab_size"], eos_token=options["eos"] or None)
        words = QuoteTokens(tokenizer)
    except Exception as error:  # the library raises bare exceptions too
        channel.send(REJECTED + str(error)[:500].encode())
        return
    limits = Limits(**options["limits"])
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Nobody waits for the processes: the kernel forgets those that have ended.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    gc.collect()
    gc.freeze()  # what is not written to stays common memory
    channel.send(b"ready")
    while _fork(tokenizer, words, limits, channel):
        pass


def _fork(tokenizer: LLTokenizer, words: QuoteTokens, limits: Limits, channel: socket.socket) -> bool:
    """Fork a process that waits for the next structure, and return when it has one; false where none will come.

    So an order finds a process that is there already: a fork takes 2 ms, and longer where the machine is busy.
    """
    reading, writing = os.pipe()
    try:
        pid = os.fork()
    except OSError:  # no process is to be had: the other end hears that nothing has begun
        _, files, _, _ = socket.recv_fds(channel, COMPILE_REQUEST.size, 2)
        for file in (*files, reading, writing):
            os.close(file)
        return bool(files)
    if pid == 0:
        try:
            os.close(reading)
            order, files, _, _ = socket.recv_fds(channel, COMPILE_REQUEST.size, 2)
            os.write(writing, b"!" if order else b".")
            if not order:
                return False
            os.close(writing)
            channel.close()
            own, text = files
            _serve_compile_request(tokenizer, words, limits, order, socket.socket(fileno=own), text)
        finally:
            os._exit(0)
    os.close(writing)
    said = os.read(reading, 1)
    os.close(reading)
    if not said:  # it was ended before it had an order, and so may be the next
        time.sleep(_RESTART_PAUSE_SECONDS)
    return said != b"."


def _serve_compile_request(
    tokenizer: LLTokenizer, words: QuoteTokens, limits: Limits, order: bytes, channel: socket.socket, text: int
) -> None:
    """Be the process of a structure."""
    kind, seconds, niceness = COMPILE_REQUEST.unpack(order)
    os.nice(niceness)
    # The library's panics would write what the caller wrote into the log.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    with open(text, encoding="utf-8") as file:
        file.seek(0)
        serve_grammar(tokenizer, words, limits, kind.rstrip(b"\0").decode(), file.read(), channel, seconds)
