"""What the front door costs: CPU of the server's process a request, over that of decode and engine alone.

python -m benchmarks.front_door IMAGE [--model BUNDLE] [--engine NAME] [--requests N] [--rounds N] [--loop auto|uvloop]
    [--http h11|httptools] [--quiet] [--profile]

Each round runs, in one process after the other: decode and engine alone, and the same over HTTP on one connection, raw
and as a form. CPU is that of the process with all its threads, so that other work on the machine hardly shows.
"""
