"""One file a runtime, each the only one that imports its package; only `engines.table` may enter, by name."""
