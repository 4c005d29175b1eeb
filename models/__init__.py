"""The contract between training and serving: the model bundle and the one way from pixels to a tensor."""
