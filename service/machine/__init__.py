"""What this machine gives the process: CPUs, memory, priority. Standard library only, so every room may enter."""
