"""What can go wrong between an address and a bundle. Texts are safe to show: they hold no token.

HubError
├── WrongRequest   the address or an option cannot mean anything; nothing was tried
├── Unreachable    a host does not answer, or refuses: the text says what was tried
├── Unusable       what is there cannot become a bundle
│   └── Unverified   what arrived is not what its source says it is
├── NoSpace        the disk is too small; the text says by how much
└── NotInstalled   a scheme needs a package that is not here
"""


class HubError(Exception):
    """Root of everything this package raises on purpose."""


class WrongRequest(HubError):
    """The address or an option cannot mean anything."""


class Unreachable(HubError):
    """A host does not answer, refuses, or must not be asked."""


class Unusable(HubError):
    """What is there cannot become a bundle."""


class Unverified(Unusable):
    """What arrived is not what its source says it is."""


class NoSpace(HubError):
    """The disk is too small."""


class NotInstalled(HubError):
    """A scheme needs a package that is not here."""

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(f"{package} is not installed, which this needs: pip install 'repvgg[{extra}]'")
