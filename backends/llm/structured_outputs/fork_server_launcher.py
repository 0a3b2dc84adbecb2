"""How the fork server is started from whatever process a model runs in."""

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
# The folder of the package `backends`, wherever others of this name are.
_ROOT = Path(__file__).resolve().parents[3]
# The library takes a second or so to read the largest vocabularies.
_START_TIMEOUT_SECONDS = 120.0


class ForkServer:
    """The running server, and the channel to it."""

    def __init__(self, tokenizer: Tokenizer, vocab_size: int, eos: frozenset[int], limits: Limits) -> None:
        """Raises `ValueError` for a tokenizer that the library cannot read, or where no interpreter is found."""
        options = {"vocab_size": vocab_size, "eos": sorted(eos), "limits": asdict(limits)}
        self._settings = os.memfd_create("tokenizer")
        with open(self._settings, "w", encoding="utf-8", closefd=False) as file:
            file.write(json.dumps(options) + "\n" + tokenizer.to_str())
        self.channel, self._process = self._start()

    def restart(self) -> None:
        """Start it again where it has died. Raises `ValueError`."""
        self._end()
        self.channel, self._process = self._start()

    def request_process(self, packet: bytes, files: list[int]) -> None:
        """Have a process forked. Raises `OSError` where the server has died."""
        socket.send_fds(self.channel, [packet], files)

    def close(self) -> None:
        """End it."""
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
        reasons = []
        for python in find_interpreters():
            os.lseek(self._settings, 0, os.SEEK_SET)
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            arguments = [str(theirs.fileno()), str(self._settings), json.dumps([str(_ROOT), *sys.path])]
            with theirs:
                process = subprocess.Popen(
                    [python, "-I", "-c", _START_SCRIPT, *arguments],
                    pass_fds=[theirs.fileno(), self._settings],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                )
            ours.settimeout(_START_TIMEOUT_SECONDS)
            try:
                said = ours.recv(4096)
            except OSError as error:
                said = REJECTED + str(error).encode()
            if said == b"ready":
                ours.setblocking(True)
                return ours, process
            ours.close()
            process.kill()
            process.wait()
            if said.startswith(REJECTED):
                raise ValueError(f"llguidance cannot read the tokenizer: {said[1:].decode(errors='replace')}")
            reasons.append(python)
        raise ValueError(f"No Python interpreter with llguidance was found for structured outputs: {reasons}.")
