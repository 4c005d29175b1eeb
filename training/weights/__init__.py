"""Weight files of others: how they are read, and what their authors call the weights. Only `convert` may enter."""
