"""The errors of the contract, by who is at fault.

ContractError ├── BundleError   the bundle is missing, corrupt, unsupported or not signed: the server's fault ├──
KeyFileError  a file is not a key for signatures: the operator's fault └── ImageError    the bytes are not a usable
image: the client's fault; its text is safe to show
"""


class ContractError(Exception):
    """Root of everything this package raises on purpose."""


class BundleError(ContractError):
    """A model bundle cannot be opened or written. The message names the file and says what to do."""


class KeyFileError(ContractError):
    """A file is not a key of the expected kind. The message names the file and never shows its content."""


class ImageError(ContractError):
    """Bytes that cannot be turned into a tensor.

    `code` is one of the public error codes (`undecodable_image`, `too_many_pixels`);
    `str(error)` tells a client what is wrong and reveals nothing about the server.
    """

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
