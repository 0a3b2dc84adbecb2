"""The project's own text-to-image model: coloured shapes, drawn from a prompt.

`scenes` invents scenes and words them, `drawing` paints them, `judge` reads a picture back; the `*_training` modules
make the parts of a Stable Diffusion pipeline from that, and `weights/` keeps what they made.
`python -m builders.shapes` trains, evaluates and shows it.
"""
