"""Train the project's own text-to-image model, which draws coloured shapes from a prompt.

`scenes` samples scenes and words their prompts, `rendering` paints them, and `judge` measures an image against its
scene. `train_vae`, `train_text_encoder` and `train_unet` make the parts of a Stable Diffusion pipeline; `train` runs
them one after the other. The trained weights lie in `builders/shapes/weights`.
`python -m training.shapes` trains, evaluates and shows the model.
"""
