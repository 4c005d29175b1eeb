"""Repositories of the Hugging Face Hub, through `huggingface_hub` and its cache.

1. HF_ENDPOINT, HF_HOME, HF_HUB_CACHE, HF_HUB_OFFLINE and HF_TOKEN mean the same as there, and files that other programs
   fetched are used;
2. a revision is resolved to a commit first, and everything is read at that commit;
3. every file is verified against the digest that the Hub gives: the SHA-256 of a large file, git's id of another;
4. a refusal says which it was: the repository is unknown, it is gated, or the token is wrong.

The library lists, names and finds; the bytes are fetched by `hub.sources.web`, since the library follows any redirect,
checks only sizes and cannot resume what another process began.
"""

from __future__ import annotations

import importlib
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, NoReturn, TypeVar
from urllib.parse import urlsplit

import huggingface_hub
from huggingface_hub import EvalResult, HfApi, ModelCard, errors, get_session, hf_hub_url
from yaml import YAMLError

from hub.errors import Unreachable, Unusable, WrongRequest
from hub.sources.arrivals import MAX_BYTES, Again, Digest, Remote, retrying
from hub.sources.trust import Trust
from hub.sources.web import Denied, Web, retry_after_s
from models.manifest import Published

T = TypeVar("T")

README = "README.md"
MAX_README_BYTES = 1 << 22
ENDPOINT = "https://huggingface.co"
_GATED = "it is gated: accept its terms there, and set HF_TOKEN to a token of that account"
_COMMIT = re.compile(r"[0-9a-f]{40}")
_NAME = re.compile(r"[\w.-]+/[\w.-]+", re.ASCII)


def endpoint(environ: Mapping[str, str]) -> str:
    return (environ.get("HF_ENDPOINT") or ENDPOINT).rstrip("/")


def cache(environ: Mapping[str, str]) -> Path:
    """As `huggingface_hub` finds it: "Environment variables" in its documentation."""
    if given := environ.get("HF_HUB_CACHE"):
        return Path(given).expanduser()
    caches = environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(environ.get("HF_HOME") or f"{caches}/huggingface").expanduser() / "hub"


@dataclass(frozen=True)
class Entry:
    """`digest` of a file is also its name in the cache."""

    size: int
    digest: Digest


@dataclass(frozen=True)
class Repository:
    """At one commit. `files`: path -> what the Hub says about it; offline, only files that were fetched before."""

    name: str
    revision: str
    commit: str
    files: Mapping[str, Entry]


class HuggingFace:
    """`web` fetches; its trust must name the endpoint. `environ`: see the module."""

    def __init__(self, environ: Mapping[str, str], web: Web) -> None:
        self._web = web
        self.endpoint = endpoint(environ)
        self.cache = cache(environ)
        self._offline = environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")
        self._given_token = environ.get("HF_TOKEN")

    @cached_property
    def token(self) -> str | None:
        return self._given_token or huggingface_hub.get_token()

    def repository(self, name: str, revision: str | None = None) -> Repository:
        """Raises WrongRequest, Unreachable, and Unusable for a repository that cannot be used here."""
        if not _NAME.fullmatch(name) or ".." in name:
            raise WrongRequest(f"hf://{name} is not a repository: write hf://ORG/MODEL[@REVISION]")
        wanted = revision or "main"
        if self._offline:
            return self._from_cache(name, wanted)
        info = self._ask(name, wanted)
        files = {file.rfilename: _entry(file) for file in info.siblings or () if _is_inside(file.rfilename)}
        known = {path: entry for path, entry in files.items() if entry}
        repository = Repository(name, wanted, str(info.sha), known)
        if not _COMMIT.fullmatch(wanted) and _is_inside(wanted):
            _write(self._folder(name) / "refs" / wanted, repository.commit)
        return repository

    def file(self, repository: Repository, path: str, max_bytes: int = MAX_BYTES) -> Path:
        """The verified file, in the cache. Raises Unreachable, Unusable and OSError."""
        entry = repository.files[path]
        if entry.size > max_bytes:
            raise Unusable(f"{path} of {repository.name} has {entry.size} bytes; at most {max_bytes} are read")
        folder = self._folder(repository.name)
        link = folder / "snapshots" / repository.commit / path
        blob = folder / "blobs" / entry.digest.value
        if not (blob.is_file() and entry.digest.of(blob) == entry.digest.value):
            blob.unlink(missing_ok=True)
            self._fetch(repository, path, entry, blob)
        link.parent.mkdir(parents=True, exist_ok=True)
        if not (link.is_symlink() and link.resolve() == blob.resolve()):
            link.unlink(missing_ok=True)
            link.symlink_to(os.path.relpath(blob, link.parent))
        return link

    def missing_bytes(self, repository: Repository, paths: Iterable[str]) -> int:
        """How many bytes are still to be fetched."""
        entries = {repository.files[path] for path in paths}
        blobs = self._folder(repository.name) / "blobs"
        return sum(entry.size for entry in entries if not (blobs / entry.digest.value).exists())

    def card(self, repository: Repository) -> tuple[str | None, Published | None]:
        """-> the licence and the accuracy that the repository's README states, None if it does not."""
        if README not in repository.files:
            return None, None
        text = self.file(repository, README, MAX_README_BYTES).read_text(encoding="utf-8", errors="replace")
        try:
            stated: Any = ModelCard(text, ignore_metadata_errors=True).data
        except (ValueError, TypeError, KeyError, AttributeError, YAMLError) as error:
            self._web.progress.say(f"  {README} of {repository.name} has no readable metadata: {type(error).__name__}")
            return None, None
        licence = stated.license if isinstance(stated.license, str) else None
        return licence, _published(stated.eval_results or [], f"{self.endpoint}/{repository.name}")

    def _fetch(self, repository: Repository, path: str, entry: Entry, blob: Path) -> None:
        if self._offline:
            raise Unreachable(f"{path} of {repository.name} is not in {self.cache}, and HF_HUB_OFFLINE is set")
        address = hf_hub_url(repository.name, path, revision=repository.commit, endpoint=self.endpoint)
        headers = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        try:
            self._web.fetch(Remote(address, path, entry.size, entry.digest, headers), blob)
        except Denied as denied:
            if denied.status in (401, 403):
                raise Unreachable(f"{denied}: {_GATED}") from None
            raise

    def _folder(self, name: str) -> Path:
        return self.cache / f"models--{name.replace('/', '--')}"

    def _ask(self, name: str, revision: str) -> Any:
        guard_redirects(self._web.trust)
        api = HfApi(endpoint=self.endpoint, token=self.token or False)
        ask = partial(api.model_info, name, revision=revision, files_metadata=True, timeout=30)
        attempt: Callable[[], Any] = partial(translating, ask, f"{self.endpoint}/{name}", revision)
        return retrying(attempt, f"{self.endpoint}/{name}", self._web.pauses_s)

    def _from_cache(self, name: str, revision: str) -> Repository:
        folder = self._folder(name)
        commit = revision if _COMMIT.fullmatch(revision) else _read(folder / "refs" / revision)
        snapshot = folder / "snapshots" / commit
        if not commit or not snapshot.is_dir():
            raise Unreachable(f"{name}@{revision} is not in {self.cache}, and HF_HUB_OFFLINE is set")
        links = [path for path in snapshot.rglob("*") if path.is_file()]
        files = {str(path.relative_to(snapshot)): _cached_entry(path) for path in links}
        return Repository(name, revision, commit, files)


def _published(results: Sequence[EvalResult], where: str) -> Published | None:
    """The first top-1 accuracy of an image classifier; a value over 1 is in percent."""
    for result in results:
        metric = re.sub(r"[^a-z0-9]", "", str(result.metric_type).lower())
        if result.task_type == "image-classification" and metric in ("accuracy", "top1", "top1accuracy"):
            with suppress(TypeError, ValueError):
                value = float(result.metric_value)
                return Published(top1=value / 100 if value > 1 else value, dataset=result.dataset_name, stated_by=where)
    return None


def _cached_entry(path: Path) -> Entry:
    blob = path.resolve()
    return Entry(blob.stat().st_size, Digest("sha256" if len(blob.name) == 64 else "git", blob.name))


def _entry(file: Any) -> Entry | None:
    """Files without a digest are left out: they could not be verified."""
    if file.lfs is not None:
        return Entry(file.lfs.size, Digest("sha256", file.lfs.sha256))
    return Entry(file.size, Digest("git", file.blob_id)) if file.blob_id and file.size is not None else None


def _is_inside(path: str) -> bool:
    return not path.startswith("/") and ".." not in path.split("/") and "\\" not in path and path.isprintable()


def _read(path: Path) -> str:
    return path.read_text().strip() if path.is_file() else ""


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def guard_redirects(trust: Trust) -> None:
    """The library's own requests follow redirects under the same rules as ours."""

    def check(response: Any) -> None:
        if response.has_redirect_location:
            target = response.url.join(response.headers["location"])
            trust.check(str(target))
            if target.host != response.url.host:
                trust.resolve(target.host, urlsplit(str(target)).port or 443)

    session = get_session()
    session.event_hooks = {**session.event_hooks, "response": [check]}


def translating(ask: Callable[[], T], address: str, revision: str) -> T:
    """Raises Again if another attempt may help, otherwise a HubError."""
    client = importlib.import_module(type(get_session()).__module__.partition(".")[0])  # httpx or httpx2
    try:
        return ask()
    except errors.HfHubHTTPError as error:
        _refused(error, address, revision)
    except errors.HFValidationError as error:
        raise WrongRequest(str(error)) from None
    except (client.HTTPError, OSError) as error:
        if isinstance(error, client.TransportError | OSError):
            raise Again(f"no connection ({type(error).__name__}: {error})") from None
        raise Unreachable(f"{address}: {error}") from None


def _refused(error: errors.HfHubHTTPError, address: str, revision: str) -> NoReturn:
    status = error.response.status_code
    if status == 429 or status >= 500:
        raise Again(
            f"{status} {error.response.reason_phrase}", retry_after_s(error.response.headers.get("Retry-After"))
        )
    if isinstance(error, errors.GatedRepoError):
        raise Unreachable(f"{address} answered {status}: {_GATED}")
    if isinstance(error, errors.RevisionNotFoundError):
        raise Unreachable(f"{address} has no revision {revision!r}")
    if isinstance(error, errors.RepositoryNotFoundError):
        raise Unreachable(
            f"there is no {address}, or it is private: set HF_TOKEN to a token with read access, or check the name"
        )
    if status == 401:
        raise Unreachable(f"{address} does not accept the token in HF_TOKEN (401)")
    if status == 403:
        raise Unreachable(f"{address} does not allow that (403): HF_TOKEN must be a token with write access")
    if status == 412:
        raise Unreachable(f"{address} has changed in the meantime (412): push again")
    raise Unreachable(f"{address} answered {status} {error.response.reason_phrase}")
