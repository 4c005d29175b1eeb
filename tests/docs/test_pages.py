"""Every command in the README and in docs/ works, except those that are listed here with a reason.

1. each fenced block names its language, so that no command goes unnoticed;
2. the commands of a page run in order, in a copy of the repository, as a reader would type them: bash runs each line of
   `sh`, Python runs `python`, `diff` is applied as a patch, and a block with a title becomes that file;
3. `repvgg serve` starts on a free port; an address on a page stands for the server that the page started last, or for
   one with the default settings;
4. a command that does not run here uses only flags that exist.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from pathlib import Path

import pytest

from scripts import docs_reference
from service.cli import VERBS, build_parser

ROOT = Path(__file__).parents[2]
COPIED = (
    "Makefile",
    "benchmarks",
    "hub",
    "k8s",
    "models",
    "pyproject.toml",
    "repvgg_client",
    "scripts",
    "service",
    "tests",
    "training",
    "weights",
)
LANGUAGES = {"sh", "python", "diff", "json", "yaml", "ini", "text"}
RUN = {"sh", "python", "diff"}
LIMIT_S = 240

# A command that contains the key does not run here, because ...
NOT_RUN = {
    "pip install": "it changes the environment of the tests; .venv has the same packages",
    "repvgg pull": "it needs the Hub; tests/hub pulls from a server that speaks its protocol",
    "repvgg_a0.rvgg_in1k": "it is the bundle of the published weights",
    "repvgg convert": "it needs a network of the reader's; tests/hub/test_pull_onnx.py converts some",
    "repvgg push": "it needs a registry; tests/hub/test_registry.py runs one",
    "repvgg remove": "it needs a bundle to remove; tests/hub/test_pull_onnx.py removes one",
    "bundles/mine/1": "it is a bundle of the reader's; tests/hub/test_signed.py serves signed and unsigned ones",
    "kubectl ": "it needs a cluster; tests/k8s checks what it would apply",
    "docker ": "it needs a container engine; tests/images does the same with podman",
    "make sbom": "it needs a container engine; tests/images makes one with podman",
    "make test": "it runs all tests, including these",
    "make train PHOTOS": "tests/training/own/test_start.py runs the command that it is short for",
    "training.start photos": "it needs photos of the reader's; tests/training/own runs all of these on drawn ones",
    "make train-demo": "it takes hours; tests/training/test_run.py trains in seconds",
    "--engine-provider cuda": "it needs an NVIDIA GPU",
    "--precision bf16": "it needs a CPU with bf16; tests/service/engines/runtimes/test_openvino.py runs on one",
    "ascend310": "it needs an Ascend 310 and CANN",
    "converter_lite": "it needs the vendor's MindSpore Lite",
    "--worker_num=8": "it needs eight devices",
    "--worker_num=2": "tests/training/run/distributed/test_ranks.py trains with it",
    "training/scripts/": "tests/training/test_scripts.py runs all five on CPU",
    "training.export --config RECIPE": "tests/training/test_scripts.py exports with it",
    "training.convert": "it needs published weights; tests/training/test_convert.py converts random ones",
    "repvgg-a0": "it is the bundle of the published weights",
    "training.quantize": "tests/training/test_quantize.py measures with it",
    "setup.py lite": "it installs; tests/test_setup.py",
    "repvgg-tiny-lite": "it needs Python 3.7; tests/training/test_lite.py, tests/e2e/processes/test_engine_process.py",
    "inspect --verify BUNDLE": "it takes a minute; tests/service/cli/bundles/test_verify.py",
    "evaluate --merge": "its parts come from a cluster; tests/service/evaluation/test_shards.py",
}
# Flags that make such a command finish sooner.
SHORTER = {
    "bench --url": "--duration 1 --warm-up 0.1",
    "--rude": "--duration 3",  # in a flood, the first refusals come before any answer
    "inspect --verify --engine": "--calls 3 --max-batch-size 2",
    "training.train": "--epochs 1 --warmup_length 1 --batch_size 8",
    "training.data": "--batch_size 8",
}
# Text that the output of such a command must contain.
SAYS = {
    "@models/samples/school_bus.jpg": '"label":"school bus"',
    "--data @-": '"label":"lemon"',
    "readyz": '"ready"',
    "curl http://127.0.0.1:8000/metrics": "repvgg_request_duration_seconds_bucket",
    "from repvgg_client": "school bus",
    "def similar": "like the cat: [('models/samples/cat.jpg',",
    "explain=cam": '"grid"',
    "tritonclient": "school bus",
    "classify models/samples": "school bus",
    "classify --engine reference": "school bus",
    "--reset_classifier True": "new: classifier.weight",
    "training.export": "top-1",
    "photo=@": '"predictions"',
    "grep input_clipped": "repvgg_input_clipped_count 1.0",
    "application/x-ndjson": '"label":"school bus"',
    "--optimizer adagrad": "images/s",
}
SERVES = re.compile(r"repvgg serve|^make serve")
ADDRESS = re.compile(r"\b127\.0\.0\.1:8\d{3}\b")
FENCE = re.compile(r"^```(\S*)(?: title=\"([^\"\n]+)\")?\n(.*?)^```$", re.DOTALL | re.MULTILINE)

PATH = re.compile(r"`((?:benchmarks|docker|docs|k8s|models|requirements|scripts|service|tests|training)/[\w./*-]*)`")
# Paths that a command of a page makes.
MADE = {"benchmarks/peers/.venvs", "docker/wheels/", "models/store/mine/2"}


@dataclass(frozen=True)
class Step:
    """One step of a page: a file to write (`title`), a program, a patch, or one shell command."""

    language: str
    title: str
    text: str


def steps(page: Path) -> Iterator[Step]:
    for language, title, text in FENCE.findall(page.read_text(encoding="utf-8")):
        if title or language in RUN - {"sh"}:
            yield Step(language, title, text)
        elif language == "sh":
            lines = text.replace("\\\n", " ").splitlines()
            yield from (Step("sh", "", command) for line in lines if (command := re.sub(r"(^|\s+)#\s.*", "", line)))


PAGES = {
    str(page.relative_to(ROOT)): list(steps(page))
    for page in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md")))
}


def why_not(step: Step) -> str | None:
    return next((reason for part, reason in NOT_RUN.items() if step.language == "sh" and part in step.text), None)


def shortened(command: str) -> str:
    return " ".join([command, *(more for part, more in SHORTER.items() if part in command)])


@dataclass
class Reader:
    """Follows a page, in `folder`."""

    folder: Path
    exports: str = ""
    address: str = ""
    server: subprocess.Popen[bytes] | None = None
    environ: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("REPVGG_")}
        (self.folder / ".curlrc").write_text("fail-with-body\nsilent\nshow-error\n")
        self.environ = kept | {
            "PATH": f"{self.folder / '.venv/bin'}:{kept['PATH']}",
            "PYTHONPATH": str(self.folder),
            "CURL_HOME": str(self.folder),
            "REPVGG_PORT": "0",
            "PYTHON": "true",  # so that `make` installs nothing
        }

    def do(self, step: Step) -> None:
        if step.title:
            (self.folder / step.title).write_text(step.text)
        elif step.language == "diff":
            self.run("git", "apply", "-", stdin=step.text)
        elif step.language == "python":
            self.check(step, self.run(sys.executable, "-W", "ignore", "-", stdin=self.addressed(step.text)))
        elif SERVES.search(step.text):
            self.serve(step.text)
        elif step.text.startswith("export "):
            self.exports += f"{step.text}\n"
        else:
            self.check(step, self.run("bash", "-c", self.exports + self.addressed(shortened(step.text))))

    def check(self, step: Step, output: str) -> None:
        for part, words in SAYS.items():
            assert part not in step.text or words in output, f"{step.text}\n{output}"

    def addressed(self, text: str) -> str:
        if ADDRESS.search(text) and not self.address:
            self.serve(".venv/bin/repvgg serve")
        return ADDRESS.sub(self.address, text)

    def run(self, *command: str, stdin: str | None = None) -> str:
        """-> stdout."""
        done = subprocess.run(
            command,
            input=stdin,
            cwd=self.folder,
            env=self.environ,
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            check=False,
        )
        assert done.returncode == 0, f"{command[-1]}\n{stdin or ''}\n{done.stdout}{done.stderr}"
        return done.stdout

    def serve(self, command: str) -> None:
        self.close()
        log = self.folder / "server.log"
        with log.open("w") as output:
            self.server = subprocess.Popen(
                ["bash", "-c", f"{self.exports}{command}"],
                cwd=self.folder,
                env=self.environ,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        while not (found := re.search(r"serving .*http://(127\.0\.0\.1:\d+)", log.read_text())):
            assert self.server.poll() is None, f"{command} ended:\n{log.read_text()}"
            time.sleep(0.05)
        self.address = found[1]

    def close(self) -> None:
        if self.server is not None and self.server.poll() is None:
            os.killpg(self.server.pid, signal.SIGKILL)
            self.server.wait(LIMIT_S)


@pytest.fixture
def reader(tmp_path: Path, draw_image: Callable[..., bytes]) -> Iterator[Reader]:
    """In a copy of the repository with an environment and photos of three classes."""
    ignored = shutil.ignore_patterns("__pycache__", ".venvs")
    for name in COPIED:
        path = ROOT / name
        copy = shutil.copytree if path.is_dir() else shutil.copy
        copy(path, tmp_path / name, **({"ignore": ignored} if path.is_dir() else {}))
    (tmp_path / ".venv").symlink_to(sys.prefix)
    for number in range(30):
        photo = tmp_path / "photos" / ("ant", "bee", "cat")[number % 3] / f"{number}.jpg"
        photo.parent.mkdir(parents=True, exist_ok=True)
        photo.write_bytes(draw_image(number))
    reading = Reader(tmp_path)
    yield reading
    reading.close()
    shutil.rmtree(tmp_path)


@pytest.mark.parametrize("page", [name for name, found in PAGES.items() if any(not why_not(step) for step in found)])
def test_the_commands_of_a_page_work(reader: Reader, page: str) -> None:
    todo = [step for step in PAGES[page] if not why_not(step)]
    for tool, word in {"curl": "curl ", "git": "--- a/"}.items():
        if any(word in step.text for step in todo) and shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed")
    for step in todo:
        reader.do(step)


@pytest.mark.parametrize("page", PAGES)
def test_each_block_names_its_language(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    found = [language for language, _, _ in FENCE.findall(text)]
    assert set(found) <= LANGUAGES
    assert text.count("\n```") == 2 * len(found)


@pytest.mark.parametrize("page", [*(page for page in PAGES if "decisions/" not in page), "models/store/README.md"])
def test_every_path_on_a_page_exists(page: str) -> None:
    named = set(PATH.findall((ROOT / page).read_text(encoding="utf-8"))) - MADE
    assert [path for path in sorted(named) if not list(ROOT.glob(path.rstrip("/")))] == []


def test_every_listed_exception_is_needed() -> None:
    commands = [step.text for found in PAGES.values() for step in found]
    for part in (*NOT_RUN, *SHORTER, *SAYS):
        assert any(part in command for command in commands), part
    for reason in NOT_RUN.values():
        assert all((ROOT / path).exists() for path in re.findall(r"tests/\S+[^;,\s]", reason)), reason


@pytest.mark.parametrize("command", [step.text for found in PAGES.values() for step in found if why_not(step)])
def test_a_command_that_does_not_run_uses_flags_that_exist(command: str) -> None:
    for verb, module, given in re.findall(rf"(?:repvgg ({'|'.join(VERBS)})|training\.(\w+))( [^|;)]*)?", command):
        parse = build_parser().parse_args if verb else import_module(f"training.{module}").main
        known = docs_reference.printed_by(partial(parse, [verb, "--help"] if verb else ["--help"]))
        assert set(re.findall(r"(?<= )--[\w-]+", given)) <= set(re.findall(r"--[\w-]+", known))
