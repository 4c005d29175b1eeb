"""The use case, without HTTP: encoded images in, the best labels of each out.

`api`, `load`, `evaluation` and the rooms above them may import it.
"""
