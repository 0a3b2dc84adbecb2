"""The Triton backend `upscaling`: a picture with more pixels, made by a network from overlapping tiles.

Triton loads `model.py`. `request_frontend.py` decodes a picture and encodes the result, `tiling.py` cuts and joins
tiles, `scheduler.py` gives the network a tile of each request in turn, and `network.py` runs it.
"""
