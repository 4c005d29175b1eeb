"""Every verb of training ends in an exit code and at most one line, whatever its streams are."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import training

ROOT = Path(training.__file__).parents[1]
VERB = """
import sys
from training.errors import DataError, Parser, reporting_errors

@reporting_errors
def main():
    if "broken" in sys.argv:
        raise DataError("no image")
    Parser().parse_args(sys.argv[1:]) if "--help" in sys.argv else None
    print("epoch 1", flush="flushed" in sys.argv)
    open("nowhere") if "gone" in sys.argv else None
    return 0

sys.exit(main())
"""


def run(words, streams, **environ):
    """-> exit code, stdout, stderr of a verb that ends as the words say, with its streams redirected by a shell."""
    script = f'set -o pipefail; "$0" -c "$1" {words} {streams}'
    done = subprocess.run(
        ["bash", "-c", script, sys.executable, VERB],
        cwd=ROOT,
        env=os.environ | environ,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("words", ["", "flushed", "--help"])
def test_a_full_disk_is_one_line(words, unbuffered):
    assert run(words, ">/dev/full", PYTHONUNBUFFERED=unbuffered) == (
        1,
        "",
        "error: the output cannot be written: No space left on device\n",
    )


@pytest.mark.parametrize(
    ("words", "streams", "expected"),
    [
        ("flushed", ">&-", (0, "", "")),
        ("broken", ">&-", (66, "", "error: no image\n")),
        ("broken", "2>&-", (66, "", "")),
        ("broken", ">&- 2>&-", (66, "", "")),
        ("broken", "2>/dev/full", (66, "", "")),
        ("broken", "2> >(exec true) && wait", (66, "", "")),
    ],
)
def test_streams_that_are_closed_or_lost_change_no_exit_code(words, streams, expected):
    assert run(words, streams) == expected


@pytest.mark.parametrize("words", ["", "flushed"])
def test_a_reader_that_closes_its_pipe_gets_no_message(words):
    code, _, err = run(words, "| true")
    assert (code in (0, 1), err) == (True, "")  # 0 where all was written before the reader had gone


def test_another_os_error_is_not_taken_for_a_lost_stream():
    code, out, err = run("gone", "")
    assert (code, out) == (1, "epoch 1\n\n")
    assert "FileNotFoundError" in err
