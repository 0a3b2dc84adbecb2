"""Train the project's own vision-language model, which describes pictures of coloured shapes.

`pictures` samples pictures of three worlds, `rendering` paints them, `captions` words them, `conversations` asks about
them, and `judge` compares a caption with its picture. `train_vision` teaches the image encoder what covers each part of
a picture, `train_captioner` the whole Idefics3 to answer; `train` runs one after the other. The trained weights lie in
`builders/shapes_captioner/weights`.
`python -m training.shapes_captioner` trains, evaluates and shows the model.
"""
