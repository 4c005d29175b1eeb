"""The image-classification service; never imports training."""
