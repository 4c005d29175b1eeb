"""Files of others -> model bundles, without a training framework; `hub` may import it."""
