"""The trained weights of the project's own text-to-video model, which animates coloured shapes: package data.

`weights/` is a diffusers folder of fp16 safetensors, a `WanPipeline`. The code that trains it is the package
`training.moving_shapes` of a checkout, which wheels leave out.
"""
