"""RepVGG weights in numpy: variants, fusing, how others name and store them. `training` may import it."""
