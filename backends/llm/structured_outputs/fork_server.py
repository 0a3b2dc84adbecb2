"""The fork server: a process that loads the tokenizer once, and forks a process for each structure.

It runs nothing that callers wrote, and has one thread, so forking it is safe.
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
    """Serve the model's process over the socket with descriptor `control`, until it is closed.

    `settings` is the descriptor of a file: a line with a JSON object, then the tokenizer's JSON.
    """
    channel = socket.socket(fileno=control)
    try:
        with open(settings, encoding="utf-8") as file:
            options = json.loads(file.readline())
            tokenizer = LLTokenizer(file.read(), n_vocab=options["vocab_size"], eos_token=options["eos"] or None)
        quote_tokens = QuoteTokens(tokenizer)
    except Exception as error:  # the library raises bare exceptions too
        channel.send(REJECTED + str(error)[:500].encode())
        return
    limits = Limits(**options["limits"])
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # The kernel reaps processes that have ended: nothing waits for them here.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    gc.collect()
    gc.freeze()  # memory that is never written stays shared with the forked processes
    channel.send(b"ready")
    while _fork(tokenizer, quote_tokens, limits, channel):
        pass


def _fork(tokenizer: LLTokenizer, quote_tokens: QuoteTokens, limits: Limits, channel: socket.socket) -> bool:
    """Fork a process that waits for the next structure, and return when it has one. Return false if none will come.

    So a request finds a process that is ready: a fork takes 2 ms, and longer on a busy machine.
    """
    reading, writing = os.pipe()
    try:
        pid = os.fork()
    except OSError:  # no process available: closing the channel tells the other end that nothing has started
        _, files, _, _ = socket.recv_fds(channel, COMPILE_REQUEST.size, 2)
        for file in (*files, reading, writing):
            os.close(file)
        return bool(files)
    if pid == 0:
        try:
            os.close(reading)
            request, files, _, _ = socket.recv_fds(channel, COMPILE_REQUEST.size, 2)
            os.write(writing, b"!" if request else b".")
            if not request:
                return False
            os.close(writing)
            channel.close()
            channel_file, text_file = files
            _serve_compile_request(
                tokenizer, quote_tokens, limits, request, socket.socket(fileno=channel_file), text_file
            )
        finally:
            os._exit(0)
    os.close(writing)
    reply = os.read(reading, 1)
    os.close(reading)
    if not reply:  # the process ended before it got a request; the next one may end too
        time.sleep(_RESTART_PAUSE_SECONDS)
    return reply != b"."


def _serve_compile_request(
    tokenizer: LLTokenizer,
    quote_tokens: QuoteTokens,
    limits: Limits,
    request: bytes,
    channel: socket.socket,
    text_file: int,
) -> None:
    """Run as the process of one structure."""
    kind, seconds, niceness = COMPILE_REQUEST.unpack(request)
    os.nice(niceness)
    # The library's panics would write the caller's text into the log.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    with open(text_file, encoding="utf-8") as file:
        file.seek(0)
        serve_grammar(tokenizer, quote_tokens, limits, kind.rstrip(b"\0").decode(), file.read(), channel, seconds)
