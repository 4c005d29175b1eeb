"""Keeps a process serving: sockets, signals, worker processes, restarts. Only `cli` may import it."""
