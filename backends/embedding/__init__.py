"""The Triton backend `embedding`: texts in, one row of numbers for each out.

`model.py` is what Triton loads. It reads tensors and hands each request to the `Desk` (`desk.py`), which tokenises
(`texts.py`) and puts every text of every request into one queue (`lanes.py`). From there texts of like length, whoever
they belong to, go through the network together (`encoder.py`).
"""
