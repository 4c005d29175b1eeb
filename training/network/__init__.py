"""The RepVGG family: table of variants, cells in MindSpore, and the maths of fusing. `config` and up may import it."""
