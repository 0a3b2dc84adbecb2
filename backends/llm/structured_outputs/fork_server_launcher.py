"""Starts the fork server, and restarts it if it has died. Runs in the model's process."""

import json
import os
import socket
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

from tokenizers import Tokenizer

from backends.llm.structured_outputs.ipc_messages import REJECTED
from backends.llm.structured_outputs.limits import Limits
from backends.serving.interpreters import find_interpreters

_START_SCRIPT = """
import json, sys
first, *others = json.loads(sys.argv[3])
sys.path[:] = [first, *sys.path, *others]
from backends.llm.structured_outputs.fork_server import main
main(int(sys.argv[1]), int(sys.argv[2]))
"""
_ROOT = Path(__file__).resolve().parents[3]
"""The folder that holds this package `backends`; there may be others of the name on Python's path."""
_START_TIMEOUT_SECONDS = 120.0
"""The library takes about a second to read the largest vocabularies."""


class ForkServer:
    """A running fork server, and the channel to it."""

    def __init__(self, tokenizer: Tokenizer, vocab_size: int, eos: frozenset[int], limits: Limits) -> None:
        """Start the server. Raises `ValueError` if llguidance cannot read the tokenizer or no interpreter has it."""
        options = {"vocab_size": vocab_size, "eos": sorted(eos), "limits": asdict(limits)}
        self._settings = os.memfd_create("tokenizer")
        with open(self._settings, "w", encoding="utf-8", closefd=False) as file:
            file.write(json.dumps(options) + "\n" + tokenizer.to_str())
        self.channel, self._process = self._start()

    def restart(self) -> None:
        """End the server, and start it again. Raises `ValueError`."""
        self._end()
        self.channel, self._process = self._start()

    def request_process(self, packet: bytes, files: list[int]) -> None:
        """Send a `COMPILE_REQUEST` with two descriptors: the process's channel and the structure's text.

        Raises `OSError` if the server has died.
        """
        socket.send_fds(self.channel, [packet], files)

    def close(self) -> None:
        """End the server."""
        self._end()
        os.close(self._settings)

    def _end(self) -> None:
        self.channel.close()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _start(self) -> tuple[socket.socket, "subprocess.Popen[bytes]"]:
        tried = []
        for python in find_interpreters():
            os.lseek(self._settings, 0, os.SEEK_SET)
            channel, server_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            arguments = [str(server_end.fileno()), str(self._settings), json.dumps([str(_ROOT), *sys.path])]
            with server_end:
                process = subprocess.Popen(
                    [python, "-I", "-c", _START_SCRIPT, *arguments],
                    pass_fds=[server_end.fileno(), self._settings],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                )
            channel.settimeout(_START_TIMEOUT_SECONDS)
            try:
                reply = channel.recv(4096)
            except OSError as error:
                reply = REJECTED + str(error).encode()
            if reply == b"ready":
                channel.setblocking(True)
                return channel, process
            channel.close()
            process.kill()
            process.wait()
            if reply.startswith(REJECTED):
                raise ValueError(f"llguidance cannot read the tokenizer: {reply[1:].decode(errors='replace')}")
            tried.append(python)
        raise ValueError(f"No Python interpreter with llguidance was found for structured outputs: {tried}.")
