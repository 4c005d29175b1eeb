"""`python -m service` is `repvgg`."""

from service.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
