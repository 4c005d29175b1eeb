"""Gets bundles and weights from elsewhere, makes bundles of them, and sends them on; `service.cli` calls it."""
