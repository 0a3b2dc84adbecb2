"""Train the project's own text-to-video model, which animates coloured shapes from a prompt.

`scenes` samples scenes, `prompts` words them, `trajectories` and `rendering` paint their clips, and `judge` measures a
clip against its scene. `train_vae`, `train_text_encoder` and `train_transformer` make the parts of a Wan pipeline;
`train` runs them one after the other. The trained weights lie in `builders/moving_shapes/weights`.
`python -m training.moving_shapes` trains, evaluates and shows the model.
"""
