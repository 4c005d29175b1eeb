"""`repvgg` and `python -m service`. Signals are obeyed from the first line on: the imports take longer than a second
where files are slow, and the first process of a container has no default for SIGTERM.
"""

import sys

from service.runtime.early_end import obey_signals

TERMINATED = 128 + 15


def main() -> int:
    obey_signals(0 if sys.argv[1:2] == ["serve"] else TERMINATED)
    from service.cli import main as run  # not before

    return run()


if __name__ == "__main__":
    raise SystemExit(main())
