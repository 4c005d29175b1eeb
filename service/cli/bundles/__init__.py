"""The verbs that get, make, send, list, inspect and remove bundles. Only `service.cli` may import it."""
