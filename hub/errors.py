"""What can go wrong between an address and a bundle. Texts are safe to show: they hold no token.

HubError
├── WrongRequest   the address or an option is invalid; nothing was tried
├── Unreachable    a host does not answer, or refuses: the text says what was tried
├── Unusable       the source cannot become a bundle
│   └── Unverified   what arrived differs from what its source announced
├── NoSpace        the disk has too little space; the text says how much is missing
└── NotInstalled   a scheme needs a package that is not installed
"""


class HubError(Exception):
    """Root of everything this package raises on purpose."""


class WrongRequest(HubError):
    """The address or an option is invalid."""


class Unreachable(HubError):
    """A host does not answer, refuses, or must not be asked."""


class Unusable(HubError):
    """The source cannot become a bundle."""


class Unverified(Unusable):
    """What arrived differs from what its source announced."""


class NoSpace(HubError):
    """The disk has too little space."""


class NotInstalled(HubError):
    """A scheme needs a package that is not installed."""

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(f"this needs {package}, which is not installed: pip install 'repvgg[{extra}]'")
