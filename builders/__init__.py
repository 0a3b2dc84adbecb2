"""Build models: weights in, engines and `config.pbtxt` out.

This package knows checkpoints, exporters and the layout of a Triton model repository, and nothing of HTTP or serving.
`builders.build.build` builds a recipe; `builders.recipe.load` reads one.
"""
