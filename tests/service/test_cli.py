from __future__ import annotations

import os
import re
import subprocess
import sys
from io import StringIO
from pathlib import Path

import pytest

import service
from models.errors import BundleError
from service.cli import VERBS, main
from service.errors import AddressUnavailable, ConfigError, EngineUnavailable, GoldenCheckFailed, UsageError
from service.runtime.exits import EXIT_CODES

ROOT = Path(service.__file__).parents[1]
HEAVY = ("fastapi", "starlette", "uvicorn", "onnxruntime", "openvino", "ncnn", "mindspore", "numpy", "PIL")


def test_the_exit_codes_are_the_promised_ones() -> None:
    promised = {
        UsageError: 2,
        BundleError: 66,
        AddressUnavailable: 69,
        EngineUnavailable: 69,
        GoldenCheckFailed: 70,
        ConfigError: 78,
    }
    assert promised == EXIT_CODES


def test_help_lists_the_verbs_and_the_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--help"], {})
    text = capsys.readouterr().out
    assert ended.value.code == 0
    assert all(re.search(rf"^ +{verb} ", text, re.MULTILINE) for verb in VERBS)
    assert "66 bundle missing or corrupt" in " ".join(text.split())


@pytest.mark.parametrize("verb", list(VERBS))
def test_every_verb_has_help(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([verb, "--help"], {})
    assert ended.value.code == 0
    assert (VERBS[verb].__doc__ or "").strip() in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("arguments", [[], ["sing"], ["classify"], ["serve", "--prot", "1"], ["evaluate"]])
def test_wrong_usage_ends_with_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments, {})
    assert ended.value.code == 2
    assert "repvgg" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ["serve", "--modle", "x"],
            "repvgg serve: error: there is no --modle; did you mean --model? see repvgg serve --help",
        ),
        (["classify", "a.jpg", "--top_k=3"], "error: there is no --top_k; did you mean --top-k?"),
        (["inspect", "a", "b"], "error: there is no b; see repvgg inspect --help"),
    ],
)
def test_a_flag_that_is_not_there_names_the_likely_one_in_one_line(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(arguments, {})
    [line] = capsys.readouterr().err.splitlines()
    assert said in line


def test_nothing_heavy_is_imported_for_help() -> None:
    program = (
        "import sys, service.cli\n"
        "try: service.cli.main(['--help'])\n"
        "except SystemExit: pass\n"
        f"print('imported:', [name for name in {HEAVY} if name in sys.modules])"
    )
    ended = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert ended.stdout.splitlines()[-1] == "imported: []"


def test_python_m_service_is_the_same() -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "service", "inspect", "nowhere"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 66
    assert ended.stderr.startswith("repvgg inspect: no model bundle at nowhere")


@pytest.mark.parametrize(
    ("environ", "flags", "said"),
    [
        ({"REPVGG_PROT": "1"}, [], "REPVGG_PROT is not a setting; did you mean REPVGG_PORT?"),
        ({"REPVGG_PORT": "99999"}, [], "REPVGG_PORT=99999 is invalid"),
        ({}, ["--timeout-ms", "soon"], "--timeout-ms=soon is invalid: it must be a whole number in 1..600000"),
    ],
)
def test_a_bad_configuration_is_one_clear_line(environ: dict[str, str], flags: list[str], said: str) -> None:
    err = StringIO()
    assert main(["serve", *flags], environ, StringIO(), err) == 78
    assert err.getvalue().startswith(f"repvgg serve: {said}")
    assert err.getvalue().count("\n") == 1


def test_a_reader_that_has_enough_is_no_failure_to_shout_about(tiny_bundle: Path) -> None:
    command = [sys.executable, "-m", "service", "inspect", str(tiny_bundle)]
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    with subprocess.Popen(command, cwd=ROOT, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 1


def test_what_nobody_foresaw_ends_with_1_and_a_traceback_in_the_log(
    tiny_bundle: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken(StringIO):
        def write(self, text: str) -> int:
            raise RuntimeError("nobody foresaw this")

    err = StringIO()
    assert main(["inspect", str(tiny_bundle)], {}, Broken(), err) == 1
    assert err.getvalue() == "repvgg inspect: RuntimeError: nobody foresaw this\n"
    assert "Traceback" in caplog.text
