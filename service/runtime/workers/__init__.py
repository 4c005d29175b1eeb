"""Several worker processes on one port, and the supervisor that starts and monitors them. Only `cli` may import it."""
