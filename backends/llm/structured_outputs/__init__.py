"""Structures that answers must have: JSON schemas, regular expressions, lists of choices, and grammars.

Whoever writes a structure decides how long it takes to compile and how much memory that takes. So the model's process
never runs one. A fork server (`server.py`) holds the tokenizer; every structure has a process of its own, forked from
it, which compiles it and then says which tokens may follow in each answer (`process.py`). The kernel bounds the
processor time and the memory of that process, and nothing is left of it once it has ended. `grammars.py` is what the
model's process sees of this: a queue, a cache of processes, and the state of each answer.
"""
