"""Objects in a bucket: s3://, gs:// and az://, through fsspec's implementations.

1. endpoint and credentials are what each implementation finds in its own environment (AWS_..., GOOGLE_..., AZURE_...);
   a public bucket of S3 is read without any;
2. an existing object is never written again;
3. an error says which object, and shows no key.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from hub.errors import NotInstalled, Unreachable, Unusable, WrongRequest
from hub.progress import Progress, megabytes
from hub.sources.arrivals import PAUSES_S, Again, Digest, Remote, arrive, retrying

T = TypeVar("T")

# The scheme's package, and where it looks for credentials.
PACKAGES = {
    "s3": ("s3fs", "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or an AWS profile"),
    "gs": ("gcsfs", "GOOGLE_APPLICATION_CREDENTIALS"),
    "az": ("adlfs", "AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY"),
}
PIECE = 8 << 20
_PLACE = re.compile(r"(?P<folder>[^/@?#]+(/[^/?#]+?)+?)/*(@sha256:(?P<digest>[0-9a-f]{64}))?")


class Missing(Unreachable):
    """There is no such object, or the caller may not know of it."""


@dataclass(frozen=True)
class Place:
    """`digest`: the sha256 of the manifest in this folder, if the address gives it."""

    scheme: str
    folder: str
    digest: str | None = None

    @classmethod
    def parse(cls, scheme: str, rest: str) -> Place:
        """`BUCKET/FOLDER[@sha256:...]`. Raises WrongRequest."""
        match = _PLACE.fullmatch(rest)
        if not match or ".." in rest.split("/"):
            raise WrongRequest(f"{scheme}://{rest} is not a folder: write {scheme}://BUCKET/FOLDER[@sha256:...]")
        return cls(scheme, match["folder"], match["digest"])

    def __str__(self) -> str:
        return f"{self.scheme}://{self.folder}"


class Objects:
    """The objects below one folder. `pauses_s`: before each further attempt."""

    def __init__(self, place: Place, progress: Progress, pauses_s: Sequence[float] = PAUSES_S) -> None:
        self.place, self.progress, self._pauses_s = place, progress, pauses_s
        self._anonymous = False

    @cached_property
    def _files(self) -> Any:
        """Raises NotInstalled."""
        package, _ = PACKAGES[self.place.scheme]
        try:
            import fsspec

            implementation = fsspec.get_filesystem_class(self.place.scheme)
        except ImportError as error:
            raise NotInstalled(package, self.place.scheme) from error
        options = {"anon": True} if self._anonymous else {}
        return implementation(skip_instance_cache=True, use_listings_cache=False, **options)

    def size(self, name: str) -> int:
        """Raises Missing and Unreachable."""
        return int(self._try(name, lambda files, path: files.info(path)["size"]))

    def read(self, name: str, max_bytes: int) -> bytes:
        """Raises Missing, Unreachable, and Unusable for a larger object."""
        if (size := self.size(name)) > max_bytes:
            raise Unusable(f"{self.place}/{name} has {megabytes(size)}; at most {megabytes(max_bytes)} are read")
        return bytes(self._try(name, lambda files, path: files.cat_file(path)))

    def fetch(self, name: str, size: int, sha256: str, path: Path) -> Path:
        """The verified object as the file `path`. Raises Missing, Unreachable, Unusable and OSError."""
        remote = Remote(f"{self.place}/{name}", name, size, Digest("sha256", sha256))
        return arrive(remote, path, partial(self._pieces, name, size), self.progress, self._pauses_s)

    def digest(self, name: str, size: int) -> str:
        """The sha256 of an object, which is read to compute it. Raises Missing and Unreachable."""
        hasher = hashlib.sha256()
        for begin in range(0, size, PIECE):
            end = min(begin + PIECE, size)
            hasher.update(self._try(name, partial(_cat, begin=begin, end=end)))
        return hasher.hexdigest()

    def create(self, name: str, path: Path) -> bool:
        """The file `path` becomes an object -> False if there is one already. Raises Unreachable."""
        try:
            self.size(name)
        except Missing:
            try:
                self._try(name, lambda files, place: files.put_file(str(path), place, mode="create"))
            except FileExistsError:
                return False
            return True
        return False

    def _pieces(self, name: str, size: int, file: BinaryIO, advance: Callable[[int], None]) -> None:
        while (begin := file.seek(0, 2)) < size:
            end = min(begin + PIECE, size)
            with self._translated(name):
                piece = self._files.cat_file(f"{self.place.folder}/{name}", start=begin, end=end)
            if len(piece) != end - begin:
                raise Again(f"{len(piece)} bytes instead of {end - begin} arrived")
            file.write(piece)
            file.flush()
            advance(len(piece))

    def _try(self, name: str, call: Callable[[Any, str], T]) -> T:
        def attempt() -> T:
            with self._translated(name):
                return call(self._files, f"{self.place.folder}/{name}")

        return retrying(attempt, f"{self.place}/{name}", self._pauses_s)

    @contextmanager
    def _translated(self, name: str) -> Iterator[None]:
        """Raises FileExistsError, Missing and Unreachable, and Again if another attempt may help."""
        shown, (_, credentials) = f"{self.place}/{name}", PACKAGES[self.place.scheme]
        try:
            yield
        except (NotInstalled, Again, FileExistsError):
            raise
        except FileNotFoundError as error:
            raise Missing(f"there is no {shown}, or no such bucket ({_text(error)})") from error
        except PermissionError as error:
            raise Unreachable(f"{shown} is refused ({_text(error)}): credentials are {credentials}") from error
        except Exception as error:  # each implementation raises the errors of its own libraries
            if _code(error) == "PreconditionFailed":
                raise FileExistsError(shown) from error
            if type(error).__name__ == "NoCredentialsError" and not self._anonymous:
                self._anonymous = True
                del self._files
            raise Again(f"{type(error).__name__} {_text(error)}".strip()) from error


def _cat(files: Any, path: str, begin: int, end: int) -> bytes:
    return bytes(files.cat_file(path, start=begin, end=end))


def _code(error: Exception) -> str:
    """The store's own name for an error, which s3fs keeps in its cause."""
    response = getattr(error.__cause__, "response", None)
    return str(response.get("Error", {}).get("Code", "")) if isinstance(response, dict) else ""


def _text(error: Exception) -> str:
    """Its first line, without the queries of addresses: signed ones have their key there."""
    return re.sub(r"\?\S*", "", str(error).partition("\n")[0])[:200]
