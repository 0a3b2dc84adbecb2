"""The trained weights of the project's own text-to-image model, which draws coloured shapes: package data.

`weights/` is a diffusers folder of fp16 safetensors; `builders.diffusion.sources` offers it as `packaged:shapes`.
The code that trains it is the package `training.shapes` of a checkout, which wheels leave out.
"""
