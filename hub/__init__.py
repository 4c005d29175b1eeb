"""Fetches bundles and weights, turns them into bundles, and publishes them; `service.cli` calls it."""
