"""`repvgg pull hf://timm/...`, through the real huggingface_hub, from a server that speaks the Hub's protocol."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hub.conversion import classifier, running
from hub.errors import Unreachable, Unusable, Unverified, WrongRequest
from models import golden
from models.store import open_bundle
from service.cli import main
from tests.hub.conftest import A0, Pull
from tests.hub.hub_server import Repo, Server
from tests.hub.repositories import Arrays, random_weights, timm_config, timm_repository
from weights import forward
from weights.variants import VARIANTS

FILES = ("config.json", "model.safetensors", "README.md")
SOURCE = f"hf://{A0}"


def test_a_network_of_timm_becomes_a_verified_bundle(pull: Pull, server: Server, a0_weights: Arrays) -> None:
    bundle = pull(SOURCE)
    manifest, commit = bundle.manifest, server.repos[A0].commit
    assert (manifest.name, manifest.version) == ("repvgg_a0.rvgg_in1k", commit[:12])
    assert manifest.network.variant == "RepVGG-A0"
    assert manifest.source is not None
    assert (manifest.source.address, manifest.source.revision) == (SOURCE, commit)
    assert manifest.source.licence == "mit"
    assert manifest.source.published is not None
    assert manifest.source.published.top1 == pytest.approx(0.72426)
    assert manifest.training.top1 is None
    assert bundle.labels[1] == "goldfish"
    tensors, logits = golden.load(bundle)
    expected = forward.logits(a0_weights, VARIANTS["RepVGG-A0"], tensors[:1])
    assert np.abs(logits[:1] - expected).max() <= 1e-4 * expected.std()


def test_each_graph_is_opened_once_for_each_output(pull: Pull, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not for each golden image: opening a large network takes a second."""
    opened: list[tuple[bytes, str, str]] = []

    def open_onnx(*graph_and_names: Any) -> running.Run:
        opened.append(graph_and_names)
        return running.open_onnx(*graph_and_names)

    monkeypatch.setattr(classifier, "open_onnx", open_onnx)
    pull(SOURCE)
    assert len(opened) == len(set(opened)) == 3  # the graph as converted, and with features as the second output


def test_the_engines_of_the_service_pass_on_it(pull: Pull, environ: dict[str, str]) -> None:
    out = io.StringIO()
    argv = ["inspect", str(pull(SOURCE).folder), "--verify", "--calls", "20", "--engine", "onnxruntime", "--json"]
    assert main(argv, {}, out, io.StringIO()) == 0
    rows = json.loads(out.getvalue())["engines"]
    assert rows[0]["failures"] == []


def test_the_command_prints_the_line_that_serves_it(environ: dict[str, str], tmp_path: Path) -> None:
    out, err = io.StringIO(), io.StringIO()
    assert (
        main(["pull", f"{SOURCE}@main", "--store", str(tmp_path), "--name", "a0", "--version", "1"], environ, out, err)
        == 0
    )
    assert out.getvalue().splitlines()[-1] == f"repvgg serve --model {tmp_path / 'a0' / '1'}"
    assert "model.safetensors" in err.getvalue()
    assert open_bundle(tmp_path / "a0" / "1").labels[0] == "tench"


def test_a_pull_needs_no_training_framework_and_a_server_no_hub(environ: dict[str, str], tmp_path: Path) -> None:
    script = (
        "import sys; sys.modules['mindspore'] = None\n"
        "from service.cli import main\n"
        "assert not any(name.partition('.')[0] in ('hub', 'huggingface_hub') for name in sys.modules)\n"
        f"code = main(['pull', {SOURCE!r}, '--store', {str(tmp_path / 'store')!r}])\n"
        "import importlib.util; sys.exit(code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], env=os.environ | environ, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert "repvgg serve --model" in done.stdout


def test_what_is_there_is_found_and_nothing_is_fetched_again(pull: Pull, server: Server) -> None:
    first = pull(SOURCE)
    before = len(server.requests("/resolve/"))
    assert pull(SOURCE).folder == first.folder
    assert len(server.requests("/resolve/")) == before


def test_another_bundle_in_its_place_is_never_changed(pull: Pull, server: Server) -> None:
    pull(SOURCE, name="mine", version="1")
    server.repos["timm/repvgg_a1.rvgg_in1k"] = server.repos[A0]
    with pytest.raises(WrongRequest, match=r"already exists, from hf://timm/repvgg_a0.rvgg_in1k at .* --version"):
        pull("hf://timm/repvgg_a1.rvgg_in1k", name="mine", version="1")


def test_offline_works_from_the_cache_and_says_what_is_not_there(
    pull: Pull, server: Server, environ: dict[str, str]
) -> None:
    pull(SOURCE)
    environ["HF_HUB_OFFLINE"] = "1"
    before = len(server.seen)
    again = pull(SOURCE, name="again")
    assert again.manifest.source is not None
    assert again.manifest.source.licence == "mit"
    assert len(server.seen) == before
    with pytest.raises(Unreachable, match=r"is not in .*, and HF_HUB_OFFLINE is set"):
        pull("hf://timm/other")


def test_files_that_huggingface_hub_fetched_are_used(pull: Pull, server: Server, environ: dict[str, str]) -> None:
    script = f"from huggingface_hub import hf_hub_download as get; [get({A0!r}, file) for file in {FILES!r}]"
    fetched = os.environ | environ | {"HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    subprocess.run([sys.executable, "-c", script], env=fetched, check=True, timeout=60)
    before = len(server.requests("/resolve/"))
    pull(SOURCE)
    assert len(server.requests("/resolve/")) == before


def test_what_fails_for_a_moment_is_tried_again(pull: Pull, server: Server) -> None:
    server.faults["/api/"] = ["429", "503", "500"]
    server.faults["model.safetensors"] = ["429", "500", "cut:100000", "503", "cut:100000", "502"]
    pull(SOURCE)


def test_what_goes_on_failing_ends_and_says_what_was_tried(pull: Pull, server: Server, tmp_path: Path) -> None:
    server.faults["model.safetensors"] = ["503"] * 9
    with pytest.raises(Unreachable, match=r"/model.safetensors: 503 .*\(4 attempts\)"):
        pull(SOURCE)
    assert not (tmp_path / "store").exists()


def test_nobody_answers(pull: Pull, environ: dict[str, str]) -> None:
    environ["HF_ENDPOINT"] = "http://127.0.0.1:9"
    with pytest.raises(
        Unreachable, match=r"http://127.0.0.1:9/timm/repvgg_a0.rvgg_in1k: no connection .*\(4 attempts\)"
    ):
        pull(SOURCE)


def test_what_came_before_a_kill_is_not_fetched_again(pull: Pull, server: Server, environ: dict[str, str]) -> None:
    server.faults["model.safetensors"] = ["cut:3000000"] + ["404"] * 5
    with pytest.raises(Unreachable):
        pull(SOURCE)
    server.faults.clear()
    pull(SOURCE)
    assert server.requests("model.safetensors")[-1].range == "bytes=3000000-"


def test_a_server_without_ranges_sends_everything_again(pull: Pull, server: Server) -> None:
    server.faults["model.safetensors"] = ["cut:3000000", "no-range"]
    pull(SOURCE)


def test_other_bytes_than_the_source_says_are_deleted(pull: Pull, server: Server, environ: dict[str, str]) -> None:
    server.faults["model.safetensors"] = ["wrong"]
    with pytest.raises(Unverified, match=r"model.safetensors has the sha256 digest .* its source says"):
        pull(SOURCE)
    blobs = list(Path(environ["HF_HOME"]).rglob("blobs/*"))
    assert all(blob.stat().st_size < 100_000 for blob in blobs)
    pull(SOURCE)


def test_a_resumed_file_that_does_not_fit_is_fetched_from_its_beginning(pull: Pull, server: Server) -> None:
    server.faults["model.safetensors"] = ["cut:3000000"] + ["404"] * 5
    with pytest.raises(Unreachable):
        pull(SOURCE)
    server.faults["model.safetensors"] = ["wrong"]
    pull(SOURCE)


def test_a_gated_and_a_missing_repository_name_the_variable(pull: Pull, server: Server) -> None:
    with pytest.raises(Unreachable, match=r"there is no .*/org/none, or it is private: set HF_TOKEN"):
        pull("hf://org/none")
    server.repos[A0].gated = True
    with pytest.raises(Unreachable, match="gated: accept its terms there, and set HF_TOKEN"):
        pull(SOURCE)


def test_a_token_goes_to_its_host_and_nowhere_else(
    pull: Pull, server: Server, environ: dict[str, str], said: io.StringIO
) -> None:
    server.repos[A0].token = environ["HF_TOKEN"] = "hf_verysecret"
    other = Server()
    with other.running():
        server.cdn = other.url
        other.plain["/signed/model.safetensors"] = server.repos[A0].files["model.safetensors"]
        with pytest.raises(Unreachable, match=r"not https; --insecure-hosts 127.0.0.1"):
            pull(SOURCE)
        assert other.seen == []
        bundle = pull(SOURCE, insecure_hosts=("127.0.0.1",))
    assert {seen.authorization for seen in server.seen} == {"Bearer hf_verysecret"}
    assert {seen.authorization for seen in other.seen} == {None}
    written = b"".join(path.read_bytes() for path in bundle.folder.rglob("*.json"))
    assert b"verysecret" not in written + said.getvalue().encode()


@pytest.mark.parametrize(
    "target",
    [
        "http://example.com/x",
        "https://169.254.169.254/latest",
        "https://10.0.0.7/x",
        "file:///etc/passwd",
        "https://[::1]/",
    ],
)
def test_redirects_to_where_nobody_should_ask_are_refused(pull: Pull, server: Server, target: str) -> None:
    for part in ("config.json", "/api/"):
        server.faults[part] = [f"redirect:{target}"]
        with pytest.raises(Unreachable, match=r"--insecure-hosts|neither https nor http|or nowhere"):
            pull(SOURCE)


def test_a_revision_is_resolved_to_a_commit(pull: Pull, server: Server) -> None:
    server.repos[A0].branches["v1"] = server.repos[A0].commit
    for revision in ("v1", server.repos[A0].commit):
        bundle = pull(SOURCE, revision=revision)
        assert bundle.manifest.source is not None
        assert bundle.manifest.source.revision == server.repos[A0].commit
    with pytest.raises(Unreachable, match="has no revision 'v2'"):
        pull(f"{SOURCE}@v2")


# Bad input

CHANGES: list[tuple[dict[str, Any], str]] = [
    ({"architecture": "repvgg_a7"}, "'repvgg_a7' is not one of timm's RepVGGs; the nearest is 'repvgg_a"),
    ({"num_classes": 0}, "num_classes is 0: the network has no classifier"),
    ({"num_classes": 10}, "model.safetensors has 1000 classes, but its labels or num_classes say 10"),
    ({"label_names": ["a", "b"]}, "label_names has 2 labels"),
    ({"global_pool": "max"}, "global_pool 'max' is not supported"),
    ({"model_args": {"act_layer": "gelu"}}, "model_args changes the network by act_layer"),
    ({"model_args": {"in_chans": 1, "global_pool": "avg"}}, "model_args changes the network by in_chans, "),
    (
        {"architecture": "repvgg_a1"},
        "belong to another network: stages.0.0.branch_1x1.bn.beta: shape (48,), expected (64,), ",
    ),
]


@pytest.mark.parametrize(("change", "why"), CHANGES, ids=[next(iter(change)) for change, _ in CHANGES])
def test_a_config_that_cannot_be_served_is_refused_by_its_key(
    pull: Pull, server: Server, change: dict[str, Any], why: str
) -> None:
    files = server.repos[A0].files | {"config.json": json.dumps(timm_config() | change).encode()}
    server.repos[A0] = Repo(files)
    with pytest.raises(Unusable) as caught:
        pull(SOURCE)
    assert why in str(caught.value)


@pytest.mark.parametrize(
    ("recipe", "why"),
    [
        ({"crop_mode": "border"}, "crop_mode 'border'"),
        ({"input_size": [1, 64, 64]}, r"input_size \[1, 64, 64\]"),
        ({"input_size": [3, 32, 64]}, r"input_size \[3, 32, 64\]"),
        ({"interpolation": "random"}, "interpolation"),
        ({"mean": [124.0, 117.0, 104.0]}, "mean is in 0..1"),
    ],
)
def test_preprocessing_that_a_bundle_cannot_say_is_refused(
    pull: Pull, server: Server, recipe: dict[str, Any], why: str
) -> None:
    config = json.dumps(timm_config(**recipe)).encode()
    server.repos[A0] = Repo(server.repos[A0].files | {"config.json": config})
    with pytest.raises(Unusable, match=why):
        pull(SOURCE)


def test_a_repository_without_what_is_needed_lists_what_is_there(pull: Pull, server: Server) -> None:
    server.repos["org/text"] = Repo({"config.json": b"{}", "pytorch_model.bin": b"x", "README.md": b"hello"})
    with pytest.raises(
        Unusable, match=r"It has: README.md, config.json, pytorch_model.bin. Needed: .*model.safetensors"
    ):
        pull("hf://org/text")


@pytest.mark.parametrize("config", [b"{", b"[]", b"[" * 100_000])
def test_a_config_that_is_no_object_is_refused(pull: Pull, server: Server, config: bytes) -> None:
    server.repos[A0] = Repo(server.repos[A0].files | {"config.json": config})
    with pytest.raises(Unusable, match=r"config.json of timm/repvgg_a0.rvgg_in1k is not"):
        pull(SOURCE)


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("repvgg-a7", "did you mean 'repvgg-a"),
        ("timm/repvgg_a0.rvgg_in1k", "write hf://timm/repvgg_a0.rvgg_in1k"),
        ("ftp://host/x", "known: hf://"),
        ("hf://nameless", "is not a repository"),
        ("hf://../..", "is not a repository"),
    ],
)
def test_an_address_that_means_nothing_says_what_does(pull: Pull, source: str, why: str) -> None:
    with pytest.raises(WrongRequest) as caught:
        pull(source)
    assert why in str(caught.value)


# Labels


def test_labels_of_the_config_come_first(pull: Pull, server: Server) -> None:
    weights = random_weights("RepVGG-A0", 3)
    labels = {"label_names": {"0": "n1", "1": "n2", "2": "c\nd"}, "label_descriptions": {"n1": "tench, Tinca tinca"}}
    server.repos["org/fish"] = Repo(timm_repository(weights, timm_config(classes=3) | labels))
    assert pull("hf://org/fish").labels == ("tench, Tinca tinca", "n2", "c d")


def test_labels_that_nobody_names_are_numbers(pull: Pull, server: Server, said: io.StringIO) -> None:
    files = timm_repository(random_weights("RepVGG-A0", 2), timm_config(classes=2, tag="mine"), b"no head")
    server.repos["org/two"] = Repo(files)
    bundle = pull("hf://org/two")
    assert bundle.labels == ("class 0", "class 1")
    assert "labels: numbers" in said.getvalue()
    assert bundle.manifest.source is not None
    assert bundle.manifest.source.published is None
    assert bundle.manifest.source.licence == "mit"  # of the config


def test_squash_and_sizes_to_test_with_are_kept(pull: Pull, server: Server) -> None:
    recipe = {"crop_mode": "squash", "test_input_size": [3, 96, 96], "test_crop_pct": 1.0, "interpolation": "bicubic"}
    server.repos["org/two"] = Repo(timm_repository(random_weights("RepVGG-A0", 2), timm_config(classes=2, **recipe)))
    spec = pull("hf://org/two").manifest.preprocess
    assert (spec.input_size, spec.resize_size, spec.resize, spec.interpolation) == (96, 96, "squash", "bicubic")


def test_squeeze_and_excitation_and_groups_are_converted(pull: Pull, server: Server) -> None:
    for part, size in (("b1g4", 32), ("d2se", 32)):
        variant = f"RepVGG-{part[0].upper()}{part[1:]}"
        config = timm_config(f"repvgg_{part}", classes=2, input_size=[3, size, size])
        server.repos["org/two"] = Repo(timm_repository(random_weights(variant, 2, deploy=True), config))
        assert pull("hf://org/two").manifest.network.variant == variant


def test_an_accuracy_that_the_card_states_is_kept(pull: Pull, server: Server) -> None:
    card = """---
license: apache-2.0
model-index:
- name: two
  results:
  - task: {type: image-classification}
    dataset: {name: fish, type: fish}
    metrics: [{type: accuracy, value: 91.5}]
---
"""
    files = timm_repository(random_weights("RepVGG-A0", 2), timm_config(classes=2), card.encode())
    server.repos["org/two"] = Repo(files)
    source = pull("hf://org/two").manifest.source
    assert source is not None
    assert source.published is not None
    assert (source.licence, source.published.top1, source.published.dataset) == ("apache-2.0", 0.915, "fish")
