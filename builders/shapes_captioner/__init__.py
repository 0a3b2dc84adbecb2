"""The trained weights of the project's own vision-language model, which describes pictures of coloured shapes.

`weights/` is an Idefics3 in Hugging Face's layout, fp16 safetensors; `builders.sources` offers it as
`packaged:shapes-captioner`. They are not part of the project yet. The code that trains them is the package
`training.shapes_captioner` of a checkout, which wheels leave out.
"""
