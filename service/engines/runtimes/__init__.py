"""One file per runtime, each the only one that imports its package. Only `engines.loading` may enter, by name."""
