"""The RepVGG family: its table, its cells in MindSpore, and the maths of fusing them. `optim` and up may enter."""
