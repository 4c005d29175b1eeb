"""Versions in a repository of the Hugging Face Hub: one commit each, and a tag on it.

1. a commit replaces all files at once, and only if the branch has not moved since it was read;
2. a tag that exists is never moved.

The bytes go where the Hub says, under the rules for redirects; not through `hf-xet`, which bypasses them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, constants
from huggingface_hub.utils.tqdm import disable_progress_bars

from hub.errors import Unreachable
from hub.sources.arrivals import retrying
from hub.sources.huggingface import HuggingFace, Repository, guard_redirects, translating
from hub.sources.web import Web

T = TypeVar("T")


class Commits:
    """Writes to one repository, as it was found. `hub` has the endpoint and the token; without a token: Unreachable."""

    def __init__(self, hub: HuggingFace, found: Repository, web: Web) -> None:
        if not hub.token:
            raise Unreachable(f"hf://{found.name} needs a token to be written: set HF_TOKEN to one with write access")
        self._found, self._web = found, web
        self._api = HfApi(endpoint=hub.endpoint, token=hub.token)
        constants.HF_HUB_DISABLE_XET = True
        disable_progress_bars()
        logging.getLogger("huggingface_hub").setLevel(logging.ERROR)

    def tags(self) -> Mapping[str, str]:
        """Name -> commit. Raises Unreachable."""
        refs = self._ask(partial(self._api.list_repo_refs, self._found.name))
        return {tag.name: tag.target_commit for tag in refs.tags}

    def commit(self, files: Mapping[str, Path], gone: Iterable[str], message: str) -> str:
        """-> the new commit, which has `files` and no longer has `gone`. Raises Unreachable."""

        def attempt() -> Any:
            added = [CommitOperationAdd(name, str(path)) for name, path in files.items()]
            removed = [CommitOperationDelete(name) for name in gone]
            return self._api.create_commit(
                self._found.name,
                [*added, *removed],
                commit_message=message,
                revision=self._found.revision,
                parent_commit=self._found.commit,
                num_threads=1,
            )

        return str(self._ask(attempt).oid)

    def tag(self, name: str, commit: str) -> None:
        """Raises Unreachable."""
        self._ask(partial(self._api.create_tag, self._found.name, tag=name, revision=commit))

    def _ask(self, call: Callable[[], T]) -> T:
        guard_redirects(self._web.trust)
        address = f"{self._api.endpoint}/{self._found.name}"
        attempt: Callable[[], T] = partial(translating, partial(_unwrapped, call), address, self._found.revision)
        return retrying(attempt, address, self._web.pauses_s)


def _unwrapped(call: Callable[[], T]) -> T:
    """Raises the cause of a failed upload, which the library wraps."""
    try:
        return call()
    except RuntimeError as error:
        raise error.__cause__ or error from None
