"""What can go wrong in the contract, by whose fault.

ContractError
├── BundleError   the bundle is missing, corrupt or not understood: the server's fault
└── ImageError    the bytes are no usable image: the client's fault; its text is safe to show
"""


class ContractError(Exception):
    """Root of everything this package raises on purpose."""


class BundleError(ContractError):
    """A model bundle cannot be opened or written. The message names the file and the way out."""


class ImageError(ContractError):
    """Bytes that cannot become a tensor.

    `code` is one of the public error codes (`undecodable_image`, `too_many_pixels`);
    `str(error)` tells a client what is wrong and names nothing of the server.
    """

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
