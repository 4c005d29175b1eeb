"""The command with names and streams that no one would choose: no traceback, and the right exit code."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import service

if TYPE_CHECKING:
    from conftest import Server

ROOT = Path(service.__file__).parents[1]
NAMES = [b"\xff\xfe.jpg", b"a\nb.jpg", b"\x1b[31mred.jpg", b"tab\t.jpg", "ü猫.jpg".encode(), b"plain.jpg"]
ASCII = {"PYTHONIOENCODING": "ascii:strict", "LANG": "C", "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
LATIN = {"PYTHONIOENCODING": "latin-1:strict", "PYTHONUTF8": "0"}
STREAMS = {"utf-8": {"PYTHONIOENCODING": "utf-8:strict"}, "ascii": ASCII, "latin-1": LATIN}


def run(command: str, tmp_path: Path, **environ: str) -> tuple[int, bytes, bytes]:
    """A shell's `command`, in which $repvgg is the command -> its exit code and its streams."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("REPVGG_")}
    repvgg = f"{sys.executable} -m service"
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", f"cd {ROOT}; {command}"],
        env=inherited | {"repvgg": repvgg, "PHOTOS": str(tmp_path)} | environ,
        capture_output=True,
        timeout=300,
        check=False,
    )
    assert b"Traceback" not in done.stderr, done.stderr.decode()
    assert b"Exception ignored" not in done.stderr, done.stderr.decode()
    assert b"Logging error" not in done.stderr, done.stderr.decode()
    return done.returncode, done.stdout, done.stderr


@pytest.fixture
def photos(tmp_path: Path, jpeg_bytes: bytes, tiny_bundle: Path) -> Path:
    """A folder with one class of images whose names are odd."""
    folder = tmp_path / "odd \x1b[1m" / "cat"
    folder.mkdir(parents=True)
    for name in NAMES:
        Path(os.fsdecode(os.fsencode(folder) + b"/" + name)).write_bytes(jpeg_bytes)
    (tmp_path / "model").symlink_to(tiny_bundle)
    return tmp_path


CLASSIFY = "$repvgg classify --model $PHOTOS/model --engine onnxruntime"


@pytest.mark.parametrize("stream", STREAMS)
def test_odd_names_are_escaped_in_the_table(photos: Path, stream: str) -> None:
    code, out, _ = run(f"{CLASSIFY} $PHOTOS/odd*", photos, **STREAMS[stream])
    assert code == 0
    lines = out.splitlines()
    assert len(lines) == len(NAMES)
    assert b"\x1b" not in out
    for escaped in (rb"\udcff\udcfe.jpg", rb"a\x0ab.jpg", rb"\x1b[31mred.jpg", rb"tab\x09.jpg", b"plain.jpg"):
        assert any(escaped in line for line in lines), (escaped, out)


@pytest.mark.parametrize("stream", STREAMS)
def test_odd_names_come_back_from_json_as_they_were(photos: Path, stream: str) -> None:
    code, out, _ = run(f"{CLASSIFY} --json $PHOTOS/odd*", photos, **STREAMS[stream])
    assert code == 0
    results = [json.loads(line) for line in out.splitlines()]
    assert {os.fsencode(result["filename"]) for result in results} == set(NAMES)
    assert all(Path(result["path"]).exists() for result in results)


@pytest.mark.parametrize("stream", STREAMS)
def test_an_error_with_an_odd_name_is_one_line(photos: Path, stream: str) -> None:
    code, out, err = run(rf"{CLASSIFY} $PHOTOS/$'no\n\x1b[1m\xffü'", photos, **STREAMS[stream])
    assert (code, out) == (2, b"")
    assert err.count(b"\n") == 1
    assert rb"no\x0a\x1b[1m" in err


VERBS = {
    "classify": f"{CLASSIFY} $PHOTOS/odd*",
    "classify --json": f"{CLASSIFY} --json $PHOTOS/odd*",
    "evaluate": "$repvgg evaluate --model $PHOTOS/model --engine onnxruntime --data $PHOTOS/odd*",
    "inspect": "$repvgg inspect $PHOTOS/model",
    "inspect --json": "$repvgg inspect $PHOTOS/model --json",
    "bench": "$repvgg bench --url $(cat $PHOTOS/url) --duration 0.3 --warm-up 0 $PHOTOS/odd*",
    "bench --json": "$repvgg bench --json --url $(cat $PHOTOS/url) --duration 0.3 --warm-up 0 $PHOTOS/odd*",
    "doctor": "$repvgg doctor --model $PHOTOS/model --engine onnxruntime --port 0",
    "doctor --json": "$repvgg doctor --json --model $PHOTOS/model --engine onnxruntime --port 0",
}


@pytest.fixture
def labelled(photos: Path, tiny_bundle: Path, server: Server) -> Path:
    """The same, but in a folder of the name of a class; and the address of a server."""
    (photos / "url").write_text(server.url)
    label = (tiny_bundle / "labels.txt").read_text().splitlines()[0]
    folder = next(photos.glob("odd*/cat"))
    folder.rename(folder.with_name(label))
    return photos


@pytest.mark.parametrize("verb", VERBS)
def test_no_terminal_is_too_poor(labelled: Path, verb: str) -> None:
    code, out, _ = run(VERBS[verb], labelled, **ASCII)
    assert code == 0
    assert out.isascii()
    if "--json" in verb:
        assert [json.loads(line) for line in out.splitlines()]


@pytest.mark.parametrize("verb", VERBS)
def test_a_closed_stdout_is_a_failure_that_is_told(labelled: Path, verb: str) -> None:
    code, _, err = run(f"{VERBS[verb]} >&-", labelled)
    assert code == 1
    assert b"the output cannot be written: Bad file descriptor" in err


@pytest.mark.parametrize("verb", VERBS)
def test_a_full_disk_is_a_failure_that_is_told(labelled: Path, verb: str) -> None:
    code, _, err = run(f"{VERBS[verb]} >/dev/full", labelled)
    assert code == 1
    assert b"the output cannot be written: No space left on device" in err


@pytest.mark.parametrize("verb", VERBS)
def test_a_closed_stderr_takes_nothing_from_the_results(labelled: Path, verb: str) -> None:
    code, out, _ = run(f"{VERBS[verb]} 2>&-", labelled)
    assert (code, bool(out)) == (0, True)


@pytest.mark.parametrize("verb", VERBS)
def test_a_reader_that_has_enough_ends_it_without_a_word(labelled: Path, verb: str) -> None:
    code, _, err = run(f"{VERBS[verb]} | true", labelled)
    assert code in (0, 1)  # 0 where all was written before the reader was gone
    assert b"cannot be written" not in err


def test_closed_streams_change_no_exit_code(photos: Path) -> None:
    assert run("$repvgg inspect nowhere >&- 2>&-", photos)[0] == 66
    assert run("$repvgg inspect $PHOTOS/model <&- >&- 2>&-", photos)[0] == 1
    assert run("$repvgg inspect 2>&-", photos)[0] == 2
    assert run("$repvgg inspect nowhere 2>&1 | true", photos)[0] == 66


def test_help_is_for_every_stream(photos: Path) -> None:
    assert run("$repvgg --help", photos, **ASCII)[0] == 0
    assert run("$repvgg serve --help | true", photos)[0] == 0
    assert run("$repvgg serve --help >&-", photos)[0] == 0


@pytest.mark.parametrize("words", ["--help", "serve --help", "-h"])
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_help_that_cannot_be_written_is_a_failure(photos: Path, words: str, unbuffered: str) -> None:
    code, _, err = run(f"$repvgg {words} >/dev/full", photos, PYTHONUNBUFFERED=unbuffered)
    assert (code, err.decode()) == (
        1,
        "repvgg --help: stopped: the output cannot be written: No space left on device\n",
    )
