"""`repvgg push` to hf://, with a server that speaks the Hub's protocol, through the real huggingface_hub."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import pytest

from hub import push as pushing
from hub.errors import Unreachable, WrongRequest
from hub.progress import Progress
from models.store import find_bundle
from service.cli import main
from tests.hub.conftest import Pull
from tests.hub.hub_server import Repo, Server
from tests.hub.test_registry import files_of

NAME = "site/tiny"
SECRET = "hf_secret"
Push = Callable[..., str]


@pytest.fixture
def repo(server: Server, environ: dict[str, str]) -> Repo:
    """An empty repository that the environment's token may write to."""
    environ["HF_TOKEN"] = SECRET
    server.repos[NAME] = Repo({"README.md": b"# mine\n"}, token=SECRET)
    return server.repos[NAME]


@pytest.fixture
def push(environ: dict[str, str], said: io.StringIO) -> Push:
    def run(bundle: Path, target: str = f"hf://{NAME}") -> str:
        return pushing.push(str(bundle), target, environ, Progress(said), pauses_s=(0, 0, 0))

    return run


def test_what_was_pushed_is_pulled_by_branch_version_and_commit(
    repo: Repo, tiny_bundle: Path, push: Push, pull: Pull, tmp_path: Path
) -> None:
    where = push(tiny_bundle)
    assert where == f"hf://{NAME}@{repo.commit}"
    for number, source in enumerate((f"hf://{NAME}", f"hf://{NAME}@1", where)):
        bundle = pull(source, store=tmp_path / str(number))
        assert files_of(bundle.folder) == files_of(tiny_bundle)
    assert repo.history[repo.commit]["README.md"] == b"# mine\n"


@pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # what httpx2 thinks of huggingface_hub
def test_large_files_go_by_lfs(repo: Repo, server: Server, push: Push, pull: Pull) -> None:
    shipped = find_bundle("repvgg-tiny-cifar10")
    server.faults[f"{NAME}/lfs/"] = ["404"]
    with pytest.raises(Unreachable, match="answered 404"):
        push(shipped)
    push(shipped)
    assert any("/lfs/" in path for path in server.wrote)
    assert files_of(pull(f"hf://{NAME}").folder) == files_of(shipped)


def test_each_version_is_one_commit_with_a_tag_and_none_is_ever_moved(
    repo: Repo, write_version: Callable[..., Path], push: Push, server: Server
) -> None:
    bundle = write_version(1)
    first, second = push(bundle), push(write_version(2))
    assert repo.tags == {"1": first.partition("@")[2], "2": second.partition("@")[2]}
    server.wrote.clear()
    assert push(bundle) == first
    assert server.wrote == []


def test_another_bundle_of_the_same_version_is_refused(
    repo: Repo, tiny_bundle: Path, push: Push, write_version: Callable[..., Path]
) -> None:
    push(tiny_bundle)
    other_bundle = write_version(1)
    before = dict(repo.branches)
    with pytest.raises(WrongRequest, match="already has version 1, and a pushed bundle is never changed"):
        push(other_bundle)
    repo.tags.clear()
    with pytest.raises(WrongRequest, match="already has version 1"):
        push(other_bundle)
    assert repo.branches == before


def test_a_push_that_died_before_its_tag_is_finished(repo: Repo, tiny_bundle: Path, push: Push) -> None:
    first = push(tiny_bundle)
    repo.tags.clear()
    assert push(tiny_bundle) == first
    assert repo.tags == {"1": repo.commit}


def test_files_of_the_bundle_before_go_and_others_stay(
    repo: Repo, write_version: Callable[..., Path], tiny_bundle: Path, push: Push
) -> None:
    push(tiny_bundle)
    bundle = write_version(2)
    gone = files_of(tiny_bundle).keys() - files_of(bundle).keys()
    push(bundle)
    assert repo.history[repo.commit].keys() == {"README.md", *files_of(bundle)}
    assert not gone & repo.history[repo.commit].keys()


def test_refusals_say_what_to_do_and_a_hiccup_does_not_matter(
    repo: Repo, tiny_bundle: Path, push: Push, server: Server, environ: dict[str, str], said: io.StringIO
) -> None:
    server.faults["/commit/main"] = ["412"]
    with pytest.raises(Unreachable, match=r"has changed in the meantime \(412\): push again"):
        push(tiny_bundle)
    server.faults["/commit/main"] = ["503"]
    push(tiny_bundle)
    server.repos["site/readonly"] = Repo({"README.md": b""})
    with pytest.raises(Unreachable, match=r"does not allow that \(403\): HF_TOKEN must be a token with write access"):
        push(tiny_bundle, "hf://site/readonly")
    with pytest.raises(Unreachable, match=r"there is no .*site/none, or it is private"):
        push(tiny_bundle, "hf://site/none")
    del environ["HF_TOKEN"]
    with pytest.raises(Unreachable, match="needs a token to be written: set HF_TOKEN"):
        push(tiny_bundle, "hf://site/readonly")
    assert SECRET not in said.getvalue()


def test_the_command_prints_the_commit(repo: Repo, tiny_bundle: Path, environ: dict[str, str]) -> None:
    out, err = io.StringIO(), io.StringIO()
    assert main(["push", str(tiny_bundle), f"hf://{NAME}"], environ, out, err) == 0
    assert out.getvalue() == f"pushed hf://{NAME}@{repo.commit}\n"
    assert main(["push", str(tiny_bundle), "https://example.com/x"], environ, out, err) == 2
    assert "bundles are pushed to oci://, hf://, s3://, gs:// and az://" in err.getvalue()
