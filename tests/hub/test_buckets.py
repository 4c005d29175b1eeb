"""`repvgg push` and `pull` of s3://, with moto's server through the real s3fs."""

from __future__ import annotations

import io
import json
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import boto3
import pytest
from moto.server import ThreadedMotoServer

from hub import pull as pulling
from hub import push as pushing
from hub.errors import NotInstalled, Unreachable, Unusable, Unverified, WrongRequest
from hub.progress import Progress
from hub.sources.objects import Missing, Objects, Place
from models.store import Bundle
from service.cli import main
from tests.hub.test_registry import files_of

FOLDER = "s3://models/tiny/1"


class CutConnections:
    """Hands connections on to a server. `cuts`: after how many bytes the answers on the next ones end."""

    def __init__(self, port: int) -> None:
        self.cuts: list[int] = []
        self.requests: list[bytes] = []
        self._port, self._listener = port, socket.create_server(("127.0.0.1", 0))
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._both_ways, args=(client,), daemon=True).start()

    def _both_ways(self, client: socket.socket) -> None:
        with client, socket.create_connection(("127.0.0.1", self._port)) as server:
            asking = threading.Thread(target=self._hand_on, args=(client, server, False), daemon=True)
            asking.start()
            self._hand_on(server, client, True)
            asking.join()

    def _hand_on(self, source: socket.socket, sink: socket.socket, answers: bool) -> None:
        with suppress(OSError):  # the other side has closed
            while piece := source.recv(1 << 16):
                if not answers:
                    self.requests.append(piece)
                elif self.cuts and len(piece) > self.cuts[0]:
                    sink.sendall(piece[: self.cuts.pop(0)])
                    break
                sink.sendall(piece)
        for end in (source, sink):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


@pytest.fixture(scope="module")
def moto() -> Iterator[int]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    yield server.get_host_and_port()[1]
    server.stop()


@pytest.fixture
def proxy(moto: int) -> Iterator[CutConnections]:
    between = CutConnections(moto)
    yield between
    between.close()


@pytest.fixture
def bucket(moto: int, proxy: CutConnections, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[object]:
    """The bucket `models`, empty; the environment leads to it, as that of a user would."""
    for name, value in {
        "AWS_ENDPOINT_URL": proxy.url,
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "a-secret",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_CONFIG_FILE": str(tmp_path / "none"),
        "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "none"),
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_MAX_ATTEMPTS": "1",  # of botocore, whose pauses grow to seconds; `pauses_s` are ours
    }.items():
        monkeypatch.setenv(name, value)
    s3 = boto3.resource("s3", endpoint_url=f"http://127.0.0.1:{moto}")
    made = s3.create_bucket(Bucket="models")
    yield made
    s3.BucketPolicy("models").delete()
    made.objects.all().delete()
    made.delete()


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    return {"XDG_CACHE_HOME": str(tmp_path / "cache")}


@pytest.fixture
def pull(environ: dict[str, str], tmp_path: Path) -> Callable[..., Bundle]:
    def run(source: str = FOLDER, store: str = "store", attempts: int = 4) -> Bundle:
        request = pulling.Request(source, tmp_path / store)
        return pulling.pull(request, environ, Progress(io.StringIO()), pauses_s=(0,) * (attempts - 1))

    return run


@pytest.fixture
def push(environ: dict[str, str]) -> Callable[..., str]:
    def run(bundle: Path, target: str = FOLDER) -> str:
        return pushing.push(str(bundle), target, environ, Progress(io.StringIO()), pauses_s=(0, 0, 0))

    return run


def policy(effect: str) -> str:
    """What anybody may do with the objects of the bucket."""
    what = {"Effect": effect, "Principal": "*", "Action": "s3:GetObject", "Resource": "arn:aws:s3:::models/*"}
    return json.dumps({"Version": "2012-10-17", "Statement": [what]})


def keys(bucket: object) -> list[str]:
    return [one.key for one in bucket.objects.all()]


def test_what_was_pushed_is_pulled_by_name_and_by_digest(
    bucket: object, tiny_bundle: Path, push: Callable[..., str], pull: Callable[..., Bundle]
) -> None:
    where = push(tiny_bundle)
    assert where.startswith(f"{FOLDER}@sha256:")
    assert files_of(pull().folder) == files_of(tiny_bundle)
    assert files_of(pull(where, "another").folder) == files_of(tiny_bundle)
    with pytest.raises(Unverified, match="the address says"):
        pull(f"{FOLDER}@sha256:{'0' * 64}", "third")


def test_the_manifest_is_written_last(bucket: object, tiny_bundle: Path, push: Callable[..., str]) -> None:
    push(tiny_bundle)
    written = {one.key: one.last_modified for one in bucket.objects.all()}
    assert written["tiny/1/manifest.json"] == max(written.values())
    assert set(written) == {f"tiny/1/{name}" for name in files_of(tiny_bundle)}


def test_a_version_is_found_equal_or_refused_and_never_changed(
    bucket: object, tiny_bundle: Path, write_version: Callable[..., Path], push: Callable[..., str]
) -> None:
    first = push(tiny_bundle)
    assert push(tiny_bundle) == first
    before = {one.key: one.e_tag for one in bucket.objects.all()}
    with pytest.raises(WrongRequest, match="already exists, and a pushed bundle is never changed"):
        push(write_version(2))
    assert {one.key: one.e_tag for one in bucket.objects.all()} == before


def test_a_push_goes_on_where_another_one_died(
    bucket: object, proxy: CutConnections, tiny_bundle: Path, push: Callable[..., str], pull: Callable[..., Bundle]
) -> None:
    push(tiny_bundle)
    bucket.Object("tiny/1/manifest.json").delete()
    bucket.Object("tiny/1/labels.txt").delete()
    with pytest.raises(Unreachable, match="there is no"):
        pull()
    proxy.requests.clear()
    push(tiny_bundle)
    sent = [piece for piece in proxy.requests if piece.startswith(b"PUT ")]
    assert len(sent) == 2
    assert files_of(pull().folder) == files_of(tiny_bundle)


class Late(Objects):
    """Has looked before somebody else wrote."""

    def size(self, name: str) -> int:
        raise Missing(name)


def test_of_two_that_write_at_once_one_is_told(bucket: object, tiny_bundle: Path, push: Callable[..., str]) -> None:
    push(tiny_bundle)
    late = Late(Place.parse("s3", "models/tiny/1"), Progress(io.StringIO()), (0, 0, 0))
    assert late.create("manifest.json", tiny_bundle / "labels.txt") is False
    assert bucket.Object("tiny/1/manifest.json").get()["Body"].read() == (tiny_bundle / "manifest.json").read_bytes()


def test_what_another_push_left_is_not_replaced(bucket: object, tiny_bundle: Path, push: Callable[..., str]) -> None:
    bucket.put_object(Key="tiny/1/labels.txt", Body=b"one\ntwo\n")
    with pytest.raises(WrongRequest, match=r"labels.txt already exists and is another file"):
        push(tiny_bundle)
    assert "tiny/1/manifest.json" not in keys(bucket)


def test_no_bucket_no_permission_and_no_server_are_said(
    bucket: object,
    tiny_bundle: Path,
    push: Callable[..., str],
    pull: Callable[..., Bundle],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(Unreachable, match=r"there is no s3://nowhere/tiny/1/manifest.json, or no such bucket"):
        pull("s3://nowhere/tiny/1")
    with pytest.raises(Unreachable, match="nowhere"):
        push(tiny_bundle, "s3://nowhere/tiny/1")
    push(tiny_bundle)
    bucket.Policy().put(Policy=policy("Deny"))
    with pytest.raises(Unreachable, match=r"manifest.json is refused .*AWS_ACCESS_KEY_ID"):
        pull()
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(Unreachable, match=r"s3://models/tiny/1/manifest.json: .*2 attempts"):
        pull(attempts=2)


def test_a_missing_and_a_changed_file_leave_no_bundle(
    bucket: object, tiny_bundle: Path, push: Callable[..., str], pull: Callable[..., Bundle], tmp_path: Path
) -> None:
    push(tiny_bundle)
    changed = bucket.Object("tiny/1/labels.txt")
    changed.put(Body=changed.get()["Body"].read().replace(b"cat\n", b"dog\n"))
    with pytest.raises(Unverified, match=r"labels.txt has the sha256 digest"):
        pull()
    changed.delete()
    with pytest.raises(Unreachable, match=r"there is no s3://models/tiny/1/labels.txt"):
        pull()
    bucket.put_object(Key="tiny/1/manifest.json", Body=b"{}")
    with pytest.raises(Unusable, match=r"manifest.json has schema_version"):
        pull()
    assert not (tmp_path / "store").exists()


def test_a_cut_connection_is_tried_again_and_what_arrived_is_kept(
    bucket: object, proxy: CutConnections, tiny_bundle: Path, push: Callable[..., str], pull: Callable[..., Bundle]
) -> None:
    push(tiny_bundle)
    proxy.cuts = [600] * 3
    assert files_of(pull().folder) == files_of(tiny_bundle)
    assert proxy.cuts == []
    proxy.requests.clear()
    assert files_of(pull(store="another").folder) == files_of(tiny_bundle)
    assert not [piece for piece in proxy.requests if piece.startswith(b"GET ") and b"manifest.json" not in piece]


def test_a_public_bucket_needs_no_credentials(
    bucket: object,
    tiny_bundle: Path,
    push: Callable[..., str],
    pull: Callable[..., Bundle],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    push(tiny_bundle)
    for one in bucket.objects.all():
        one.Acl().put(ACL="public-read")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    assert files_of(pull().folder) == files_of(tiny_bundle)


def test_the_command_pushes_pulls_and_names_what_is_not_installed(
    bucket: object, tiny_bundle: Path, environ: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, err = io.StringIO(), io.StringIO()
    assert main(["push", str(tiny_bundle), FOLDER], environ, out, err) == 0
    assert out.getvalue().startswith(f"pushed {FOLDER}@sha256:")
    assert main(["pull", FOLDER, "--store", str(tmp_path / "store")], environ, out, err) == 0
    assert main(["pull", "s3://models", "--store", str(tmp_path / "store")], environ, out, err) == 2
    assert "s3://models is not a folder: write s3://BUCKET/FOLDER" in err.getvalue()
    monkeypatch.setitem(sys.modules, "s3fs", None)
    monkeypatch.delitem(sys.modules["fsspec.registry"]._registry, "s3")
    assert main(["pull", FOLDER, "--store", str(tmp_path / "store")], environ, out, err) == 78
    assert "this needs s3fs, which is not installed: pip install 'repvgg[s3]'" in err.getvalue()


@pytest.mark.parametrize(("address", "package"), [("gs://models/tiny/1", "gcsfs"), ("az://models/tiny/1", "adlfs")])
def test_other_buckets_name_their_package(pull: Callable[..., Bundle], address: str, package: str) -> None:
    with pytest.raises(NotInstalled, match=package):
        pull(address)
