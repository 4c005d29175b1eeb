"""The verbs that pull, make, push, list, inspect and remove bundles. Only `service.cli` may import it."""
