"""The Triton backend `llm`: text generation with continuous batching.

Start with the life of a request:

1. `model.py` is the file that Triton loads. `tensors.py` reads a request's tensors, `sampling_params.py` its options.
2. `request_frontend.py` tracks the request as an `ActiveRequest`. `prompt_tokenizer.py` makes token ids,
   `structured_outputs/` compiles a grammar if one is requested, and `vision/` encodes images.
3. `engine.py` defines the interface of every engine: token ids and sampling parameters in, events out.
   `batching/engine.py` implements it with continuous batching.
4. `batching/scheduler.py` runs prefills and decode steps over slots, on a `ModelRunner`. `ort/model_runner.py` is one,
   on onnxruntime.
5. `output_collector.py` gathers the events of a request into responses, and `tensors.py` sends them.
"""
