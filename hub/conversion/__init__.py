"""Other projects' files -> model bundles, without a training framework; `hub` may import it."""
