"""Graphs of others, bundles of ours and plain addresses, through `repvgg pull` and `repvgg convert`."""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from PIL import Image

from hub import shelf, space
from hub.addresses import How
from hub.errors import NoSpace, Unreachable, Unusable, Unverified, WrongRequest
from models import golden
from models.store import open_bundle
from service.cli import main
from tests.hub import graphs
from tests.hub.conftest import Pull
from tests.hub.hub_server import Repo, Server

LABELS = ["tench", "goldfish", "shark", "ray", "cock"]
PROCESSOR = {"image_processor_type": "ViTImageProcessor", "size": {"height": 16, "width": 16}}
CONFIG = {
    "architectures": ["ViTForImageClassification"],
    "model_type": "vit",
    "id2label": {str(number): label for number, label in enumerate(LABELS)},
}
WORDS = "size=16,crop_pct=1,interpolation=bilinear,mean=0.5,0.5,0.5,std=0.5"


def vit_repository(model: onnx.ModelProto, **files: bytes) -> Repo:
    return Repo(
        {
            "config.json": json.dumps(CONFIG).encode(),
            "preprocessor_config.json": json.dumps(PROCESSOR).encode(),
            "onnx/model.onnx": model.SerializeToString(),
            "onnx/model_quantized.onnx": b"not this one",
            **files,
        }
    )


@pytest.fixture
def labels(tmp_path: Path) -> Path:
    path = tmp_path / "labels.txt"
    path.write_text("\n".join(LABELS) + "\n")
    return path


def test_a_transformers_export_answers_as_its_own_pipeline(pull: Pull, server: Server) -> None:
    server.repos["org/vit"] = vit_repository(graphs.torch_dynamic())
    bundle = pull("hf://org/vit")
    assert bundle.labels == tuple(LABELS)
    assert bundle.manifest.network.variant == "vit"
    photo = next(bundle.folder.glob("golden/*.png"))
    # As ViTImageProcessor with Pillow does it.
    squashed = Image.open(photo).convert("RGB").resize((16, 16), Image.Resampling.BILINEAR)
    pixels = ((np.asarray(squashed, np.float32) / 255 - 0.5) / 0.5).transpose(2, 0, 1)[None]
    session = onnxruntime.InferenceSession(graphs.torch_dynamic().SerializeToString())
    expected = session.run(None, {"pixel_values": pixels})[0][0]
    index = sorted(path.name for path in bundle.folder.glob("golden/*.[pj]*g")).index(photo.name)
    np.testing.assert_allclose(golden.load(bundle)[1][index], expected, atol=1e-4)


def test_weights_in_a_file_of_their_own_are_fetched_too(pull: Pull, server: Server, tmp_path: Path) -> None:
    options = {"save_as_external_data": True, "location": "model.onnx_data", "size_threshold": 0}
    onnx.save_model(graphs.torch_dynamic(), tmp_path / "model.onnx", **options)
    data = (tmp_path / "model.onnx_data").read_bytes()
    model = onnx.load_model(tmp_path / "model.onnx", load_external_data=False)
    server.repos["org/vit"] = vit_repository(model, **{"onnx/model.onnx_data": data})
    assert pull("hf://org/vit").manifest.network.parameters == 8 * 27 + 8 + 5 * 8 + 5
    server.repos["org/cut"] = vit_repository(model)
    with pytest.raises(Unusable, match=r"model.onnx_data, which org/cut does not have"):
        pull("hf://org/cut")


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_engines_serve_a_graph_of_others(pull: Pull, server: Server, engine: str) -> None:
    server.repos["org/vit"] = vit_repository(graphs.torch_fixed())
    out = io.StringIO()
    argv = ["inspect", str(pull("hf://org/vit").folder), "--verify", "--calls", "20", "--engine", engine, "--json"]
    assert main(argv, {}, out, io.StringIO()) == 0
    rows = [row for row in json.loads(out.getvalue())["engines"] if row["precision"] == "fp32"]
    assert rows[0]["failures"] == []


def test_an_int8_graph_is_served_without_being_asked_for(pull: Pull, server: Server) -> None:
    server.repos["org/vit"] = vit_repository(graphs.quantized())
    bundle = pull("hf://org/vit")
    assert [artifact.precision for artifact in bundle.manifest.artifacts] == ["int8"]
    out = io.StringIO()
    argv = ["classify", str(next(bundle.folder.glob("golden/*.png"))), "--model", str(bundle.folder), "--json"]
    assert main([*argv, "--engine", "onnxruntime"], {}, out, io.StringIO()) == 0
    assert json.loads(out.getvalue())["predictions"][0]["label"] in LABELS


def test_a_model_of_another_task_writes_nothing(pull: Pull, server: Server, tmp_path: Path) -> None:
    bert = json.dumps(CONFIG | {"architectures": ["BertForMaskedLM"]}).encode()
    server.repos["org/bert"] = vit_repository(graphs.torch_dynamic(), **{"config.json": bert})
    with pytest.raises(Unusable, match="BertForMaskedLM"):
        pull("hf://org/bert")
    assert not (tmp_path / "store").exists()


def test_serve_pulls_what_it_is_told_to_serve(server: Server, environ: dict[str, str], tmp_path: Path) -> None:
    server.repos["org/vit"] = vit_repository(graphs.torch_dynamic())
    command = [sys.executable, "-m", "service", "serve", "--model", "hf://org/vit", "--port", "0"]
    command += ["--engine", "onnxruntime", "--log-format", "json"]
    environ["XDG_CACHE_HOME"] = str(tmp_path / "cache")
    with subprocess.Popen(command, env=os.environ | environ, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            assert any("http://127.0.0.1:" in line for line in process.stdout)
        finally:
            process.kill()
    assert list((tmp_path / "cache" / "repvgg" / "bundles").glob("vit/*/manifest.json"))


# Bundles of ours


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_bundle_of_ours_comes_as_it_is(pull: Pull, server: Server, tiny_bundle: Path) -> None:
    server.repos["org/tiny"] = Repo(files_of(tiny_bundle))
    bundle = pull("hf://org/tiny")
    assert (bundle.manifest.name, bundle.manifest.version) == ("tiny", "1")
    assert files_of(bundle.folder) == files_of(tiny_bundle)
    assert pull("hf://org/tiny").folder == bundle.folder
    renamed = pull("hf://org/tiny", name="other", version="2")
    assert (renamed.manifest.name, renamed.manifest.version) == ("other", "2")
    assert renamed.manifest.artifacts == bundle.manifest.artifacts


def test_equal_files_are_stored_once(pull: Pull, server: Server, tiny_bundle: Path) -> None:
    server.repos["org/tiny"] = Repo(files_of(tiny_bundle))
    first, second = pull("hf://org/tiny"), pull("hf://org/tiny", version="2")
    assert (first.folder / "tiny.onnx").samefile(second.folder / "tiny.onnx")
    open_bundle(second.folder)


def test_a_bundle_that_is_not_whole_or_changed_is_refused(pull: Pull, server: Server, tiny_bundle: Path) -> None:
    files = files_of(tiny_bundle)
    server.repos["org/cut"] = Repo({name: content for name, content in files.items() if name != "labels.txt"})
    with pytest.raises(Unusable, match=r"names labels.txt, which does not exist"):
        pull("hf://org/cut")
    server.repos["org/changed"] = Repo(files | {"labels.txt": files["labels.txt"].replace(b"cat", b"dog")})
    with pytest.raises(Unusable, match=r"labels.txt"):
        pull("hf://org/changed")


# Plain addresses


@pytest.fixture
def web_options(environ: dict[str, str], tmp_path: Path) -> dict[str, Any]:
    environ["XDG_CACHE_HOME"] = str(tmp_path / "cache")
    return {"insecure_hosts": ("127.0.0.1",)}


def test_an_onnx_file_at_an_address(pull: Pull, server: Server, labels: Path, web_options: dict[str, Any]) -> None:
    content = graphs.tf_nhwc().SerializeToString()
    server.plain["/net.onnx"] = content
    how = How(preprocess=WORDS, labels=str(labels))
    bundle = pull(f"{server.url}/net.onnx?token=secret", how=how, **web_options)
    digest = hashlib.sha256(content).hexdigest()
    assert bundle.manifest.source is not None
    assert (bundle.manifest.source.address, bundle.manifest.source.revision) == (
        f"{server.url}/net.onnx",
        f"sha256:{digest}",
    )
    with pytest.raises(Unverified, match=r"net.onnx has the sha256 digest"):
        pull(f"{server.url}/net.onnx", how=how, sha256="0" * 64, **web_options)


def tar_of(files: dict[str, bytes], *members: tarfile.TarInfo) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
        for member in members:
            tar.addfile(member)
    return out.getvalue()


def test_a_tar_of_a_bundle(pull: Pull, server: Server, tiny_bundle: Path, web_options: dict[str, Any]) -> None:
    content = tar_of({f"tiny/1/{name}": text for name, text in files_of(tiny_bundle).items()})
    server.plain["/tiny.tar.gz"] = content
    bundle = pull(f"{server.url}/tiny.tar.gz", sha256=hashlib.sha256(content).hexdigest(), **web_options)
    assert files_of(bundle.folder) == files_of(tiny_bundle)


def link(name: str, target: str, kind: bytes) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    return member


HOSTILE = [
    (tar_of({"../escaped": b"x"}), "is outside its folder"),
    (tar_of({"/etc/escaped": b"x"}), "is outside its folder"),
    (tar_of({}, link("a", "/etc/passwd", tarfile.SYMTYPE)), "neither a file nor a folder"),
    (tar_of({}, link("a", "b", tarfile.LNKTYPE)), "neither a file nor a folder"),
    (tar_of({}, link("a", "", tarfile.FIFOTYPE)), "neither a file nor a folder"),
    (tar_of({"a": b"x"}), "has no manifest.json"),
    (b"no archive", "is not a usable .tar"),
    (tar_of({"a": b"x" * 5000})[:40], "is not a usable .tar|has no manifest.json"),
]


@pytest.mark.parametrize(("content", "why"), HOSTILE, ids=range(len(HOSTILE)))
def test_an_archive_cannot_leave_its_folder(
    pull: Pull, server: Server, web_options: dict[str, Any], tmp_path: Path, content: bytes, why: str
) -> None:
    server.plain["/bad.tar"] = content
    with pytest.raises(Unusable, match=why):
        pull(f"{server.url}/bad.tar", **web_options)
    assert not list(tmp_path.rglob("escaped"))


def test_plain_http_and_private_addresses_need_to_be_named(pull: Pull, server: Server) -> None:
    with pytest.raises(Unreachable, match=r"not https; --insecure-hosts 127.0.0.1 allows it"):
        pull(f"{server.url}/net.onnx")
    for private in ("https://192.168.0.1/x.onnx", "https://[::ffff:127.0.0.1]/x.onnx", "https://localhost/x.onnx"):
        with pytest.raises(Unreachable, match="private address"):
            pull(private)


def test_a_file_without_end_is_cut_off(pull: Pull, server: Server, web_options: dict[str, Any]) -> None:
    server.plain["/net.onnx"] = b"x" * 5000
    server.faults["/net.onnx"] = ["", "endless"]
    with pytest.raises(Unusable, match="larger than"):
        pull(f"{server.url}/net.onnx", **web_options)


# Files that are here


def test_convert_makes_a_bundle_that_serves(tmp_path: Path, labels: Path) -> None:
    onnx.save_model(graphs.tf_nhwc(), tmp_path / "net.onnx")
    out, err = io.StringIO(), io.StringIO()
    argv = ["convert", "--from", "onnx", "--weights", str(tmp_path / "net.onnx"), "--preprocess", WORDS]
    argv += ["--labels", str(labels), "--store", str(tmp_path / "store"), "--name", "net", "--version", "3"]
    assert main(argv, {}, out, err) == 0, err.getvalue()
    assert out.getvalue().endswith(f"repvgg serve --model {tmp_path / 'store' / 'net' / '3'}\n")
    assert main(argv, {}, out, err) == 66
    assert "exists" in err.getvalue()


@pytest.mark.parametrize(
    ("argv", "code", "why"),
    [
        (["--from", "caffe"], 2, "--from caffe is not known"),
        ([], 2, "--preprocess and --labels"),
        (["--preprocess", "sice=16", "--labels", "L"], 2, "'sice' is not known; known: size"),
        (["--preprocess", "size=x", "--labels", "L"], 2, "invalid literal"),
        (["--preprocess", "size=16,mean=124", "--labels", "L"], 66, "mean is in 0..1"),
        (["--preprocess", "size=16", "--labels", "imagenet"], 66, "5 scores for an image, there are 1000 labels"),
        (["--preprocess", "/nowhere.json", "--labels", "L"], 2, "cannot be read"),
    ],
)
def test_convert_says_what_is_missing_or_wrong(
    tmp_path: Path, labels: Path, argv: list[str], code: int, why: str
) -> None:
    onnx.save_model(graphs.torch_dynamic(), tmp_path / "net.onnx")
    given = [str(labels) if part == "L" else part for part in argv]
    err = io.StringIO()
    fixed = ["convert", "--weights", str(tmp_path / "net.onnx"), "--store", str(tmp_path)]
    assert main([*fixed, *given], {}, io.StringIO(), err) == code
    assert why in err.getvalue()


# The store


def test_list_and_remove(pull: Pull, server: Server, tiny_bundle: Path, tmp_path: Path) -> None:
    server.repos["org/tiny"] = Repo(files_of(tiny_bundle))
    pull("hf://org/tiny")
    out, err = io.StringIO(), io.StringIO()
    store = ["--store", str(tmp_path / "store")]
    assert main(["list", *store], {}, out, err) == 0
    assert out.getvalue().startswith("tiny/1 ")
    assert main(["remove", "tiny/2", *store], {}, out, err) == 2
    assert "it has: tiny/1" in err.getvalue()
    assert main(["remove", "../../etc", *store], {}, out, err) == 2
    assert main(["remove", "tiny/1", *store], {}, out, err) == 0
    assert list(shelf.bundles(tmp_path / "store")) == []
    with pytest.raises(WrongRequest):
        shelf.remove("tiny/1", tmp_path / "store")


def test_a_full_disk_says_how_much_is_missing(tmp_path: Path) -> None:
    needs = {tmp_path / "cache": 6_000_000, tmp_path / "store": 6_000_000}
    with pytest.raises(NoSpace, match=r"needs 12 MB, and its disk has 10 MB free: 2 MB are missing"):
        space.check(needs, free=lambda _: 10_000_000)
    space.check(needs, free=lambda _: 12_000_000)
