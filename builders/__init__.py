"""Weights in, engines and `config.pbtxt` out.

Knows checkpoints, exporters and the layout of a Triton model repository. Knows nothing of HTTP or of serving.
`builders.build.build` builds a recipe; `builders.recipe.load` reads one.
"""
