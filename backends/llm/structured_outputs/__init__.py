"""Structured outputs: answers that follow a JSON schema, a regular expression, a list of choices, or a grammar.

The caller's structure decides how long it takes to compile and how much memory that needs. So the model's process never
compiles one:

- `fork_server.py` runs as a process that has loaded the tokenizer, and forks one process per structure.
- `grammar_process.py` runs in that process. It compiles the structure with llguidance (`llguidance_grammar.py`,
  `json_schema/`, `structural_tags.py`) and computes the token masks of its answers. The kernel limits its processor
  time and memory (`limits.py`), and frees everything when it ends.
- `grammar_compiler.py` is the part in the model's process, with a queue of jobs (`compile_queue.py`) and a cache of
  processes (`process_cache.py`). A request gets a `CompiledGrammar`, and each of its answers a matcher.
- `ipc_messages.py` is the protocol between them.
"""
