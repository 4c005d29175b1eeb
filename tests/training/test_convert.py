"""Converted weights give the logits of a plain reference of the published formula, whoever named them.

The reference is written from the paper (section 3.3 of RepVGG, CVPR 2021) in float64, branch by branch, and knows
nothing of the code that it judges.
"""

import csv
import hashlib
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from training import convert
from training.errors import CheckpointError, ConfigError, DataError
from training.network.variants import VARIANTS
from training.weights import sources

ROOT = Path(__file__).parents[2]
PUBLISHED = [name for name in VARIANTS if name.startswith("RepVGG-") and name not in ("RepVGG-Tiny", "RepVGG-Smoke")]
CLASSES = 5
EPS = 1e-5


@dataclass
class Norm:
    gamma: np.ndarray
    beta: np.ndarray
    mean: np.ndarray
    variance: np.ndarray

    def __call__(self, x):
        gamma, beta, mean, variance = (
            v.astype(np.float64)[:, None, None] for v in (self.gamma, self.beta, self.mean, self.variance)
        )
        return gamma * (x - mean) / np.sqrt(variance + EPS) + beta


@dataclass
class Branch:
    """A convolution without bias and its batch norm."""

    kernel: np.ndarray
    norm: Norm


@dataclass
class Block:
    stride: int
    groups: int
    dense: Branch
    small: Branch
    identity: Norm | None
    squeeze: tuple[np.ndarray, ...] | None  # kernel and bias of the way down, kernel and bias of the way up

    def __call__(self, x):
        y = self.dense.norm(convolve(x, self.dense.kernel, self.stride, self.groups))
        y = y + self.small.norm(convolve(x, self.small.kernel, self.stride, self.groups))
        if self.identity is not None:
            y = y + self.identity(x)
        if self.squeeze is not None:
            y = y * attention(y, *self.squeeze)
        return np.maximum(y, 0)


def convolve(x, kernel, stride, groups):
    """(N, C_in, H, W) * (C_out, C_in / groups, k, k), zero padding k // 2: written from the definition."""
    pad = kernel.shape[2] // 2
    x = np.pad(x, ((0, 0), (0, 0), (pad, pad), (pad, pad)))
    windows = np.lib.stride_tricks.sliding_window_view(x, kernel.shape[2:], (2, 3))[:, :, ::stride, ::stride]
    split = zip(np.split(windows, groups, axis=1), np.split(kernel.astype(np.float64), groups), strict=True)
    parts = [np.tensordot(part, weights, ((1, 4, 5), (1, 2, 3))) for part, weights in split]
    return np.concatenate(parts, axis=3).transpose(0, 3, 1, 2)


def attention(x, down, down_bias, up, up_bias):
    inner = np.maximum(np.einsum("nc,oc->no", x.mean((2, 3)), down[:, :, 0, 0]) + down_bias, 0)
    return 1 / (1 + np.exp(-np.einsum("nc,oc->no", inner, up[:, :, 0, 0]) - up_bias))[:, :, None, None]


@dataclass
class Reference:
    """A RepVGG with random weights; each batch norm's statistics lie around those of real activations."""

    stages: list[list[Block]]
    head: np.ndarray
    head_bias: np.ndarray

    def __call__(self, images):
        x = images.astype(np.float64)
        for stage in self.stages:
            for block in stage:
                x = block(x)
        return x.mean((2, 3)) @ self.head.astype(np.float64).T + self.head_bias


def random_reference(variant, classes, seed=0, size=32):
    rng = np.random.default_rng(seed)
    x, index, stages = rng.normal(size=(2, 3, size, size)), 0, []
    for width, depth, stride in zip(variant.widths, variant.depths, variant.strides, strict=True):
        stages.append([])
        for position in range(depth):
            groups = variant.groups if index > 0 and index % 2 == 0 else 1
            block = random_block(rng, x, width, stride if position == 0 else 1, groups, variant.squeeze_excite)
            stages[-1].append(block)
            x, index = block(x), index + 1
    head = rng.normal(0, 1 / np.sqrt(width), (classes, width)).astype(np.float32)
    return Reference(stages, head, rng.normal(size=classes).astype(np.float32))


def random_block(rng, x, width, stride, groups, squeeze_excite):
    channels = x.shape[1]

    def branch(size):
        fan_in = channels // groups * size * size
        kernel = rng.normal(0, np.sqrt(2 / fan_in), (width, channels // groups, size, size)).astype(np.float32)
        return Branch(kernel, random_norm(rng, convolve(x, kernel, stride, groups)))

    identity = random_norm(rng, x) if channels == width and stride == 1 else None
    squeeze = None
    if squeeze_excite:
        inner = width // 16
        shapes = ((inner, width, 1, 1), (inner,), (width, inner, 1, 1), (width,))
        squeeze = tuple(rng.normal(0, 0.5, shape).astype(np.float32) for shape in shapes)
    return Block(stride, groups, branch(3), branch(1), identity, squeeze)


def random_norm(rng, x):
    channels, spread = x.shape[1], x.std()
    values = (
        rng.normal(0.6, 0.2, channels),
        rng.normal(0, 0.3, channels),
        x.mean() + spread * rng.normal(0, 0.3, channels),
        spread**2 * rng.uniform(0.5, 2, channels),
    )
    return Norm(*(value.astype(np.float32) for value in values))


# How each source spells a network, written down from its published code: (block's prefix, the names inside).
TORCH_NORM = {"gamma": "weight", "beta": "bias", "mean": "running_mean", "variance": "running_var"}
MINDSPORE_NORM = {"gamma": "gamma", "beta": "beta", "mean": "moving_mean", "variance": "moving_variance"}


@dataclass
class Spelling:
    stem: str
    block: str
    dense: tuple[str, str]
    small: tuple[str, str]
    identity: str
    fused: str
    squeeze: tuple[str, str]
    head: str
    norm: dict
    first_stage: int = 1
    counts_batches: bool = False

    def prefix(self, stage, position):
        return self.stem if stage == 0 else self.block.format(stage - 1 + self.first_stage, position)


SPELLINGS = {
    "pytorch": Spelling(
        "stage0.", "stage{}.{}.", ("rbr_dense.conv", "rbr_dense.bn"), ("rbr_1x1.conv", "rbr_1x1.bn"), "rbr_identity",
        "rbr_reparam", ("se.down", "se.up"), "linear", TORCH_NORM, counts_batches=True,
    ),
    "timm": Spelling(
        "stem.", "stages.{}.{}.", ("conv_kxk.conv", "conv_kxk.bn"), ("conv_1x1.conv", "conv_1x1.bn"), "identity",
        "reparam_conv", ("attn.fc1", "attn.fc2"), "head.fc", TORCH_NORM, first_stage=0, counts_batches=True,
    ),
    "mindcv": Spelling(
        "stage0.", "stage{}.{}.", ("rbr_dense.0", "rbr_dense.1"), ("rbr_1x1.0", "rbr_1x1.1"), "rbr_identity",
        "rbr_reparam", ("se.conv_reduce", "se.conv_expand"), "linear", MINDSPORE_NORM,
    ),
    "modelzoo": Spelling(
        "model.stage0.", "model.stage{}.{}.", ("rbr_dense.0", "rbr_dense.1"), ("rbr_1x1.0", "rbr_1x1.1"),
        "rbr_identity", "rbr_reparam", ("se.down", "se.up"), "model.linear", MINDSPORE_NORM,
    ),
    "own": Spelling(
        "stages.0.0.", "stages.{}.{}.", ("branch_3x3.conv", "branch_3x3.bn"), ("branch_1x1.conv", "branch_1x1.bn"),
        "branch_identity", "conv", ("squeeze_excite.down", "squeeze_excite.up"), "classifier", MINDSPORE_NORM,
    ),
}  # fmt: skip


def spell(reference, source, form):
    """-> name -> array as a file of `source` holds them."""
    spelling, arrays = SPELLINGS[source], {}
    for stage, blocks in enumerate(reference.stages):
        for position, block in enumerate(blocks):
            prefix = spelling.prefix(stage, position)
            parts = train_parts(block, spelling) if form == "train" else deploy_parts(block, spelling)
            for name, part in zip(spelling.squeeze, (block.squeeze or ())[::2], strict=False):
                parts[f"{name}.weight"] = part
            for name, part in zip(spelling.squeeze, (block.squeeze or ())[1::2], strict=False):
                parts[f"{name}.bias"] = part
            arrays |= {prefix + name: array for name, array in parts.items()}
    arrays |= {f"{spelling.head}.weight": reference.head, f"{spelling.head}.bias": reference.head_bias}
    if source == "modelzoo":
        arrays = {name: part for whole, array in arrays.items() for name, part in in_groups(whole, array, reference)}
        arrays |= {"moments." + name: array for name, array in arrays.items()}
        arrays |= {"learning_rate": np.float32(0.1), "global_step": np.int32(7), "scale_sense": np.float32(1024)}
    if source == "own":
        arrays |= {"epoch": np.int32(3), "momentum.classifier.bias": reference.head_bias}
    return arrays


def train_parts(block, spelling):
    parts = {}
    for (conv, norm), branch in ((spelling.dense, block.dense), (spelling.small, block.small)):
        parts |= {f"{conv}.weight": branch.kernel} | norm_parts(norm, branch.norm, spelling)
    return parts | (norm_parts(spelling.identity, block.identity, spelling) if block.identity else {})


def norm_parts(name, norm, spelling):
    parts = {f"{name}.{spelling.norm[part]}": getattr(norm, part) for part in spelling.norm}
    return parts | ({f"{name}.num_batches_tracked": np.array(9, np.int64)} if spelling.counts_batches else {})


def deploy_parts(block, spelling):
    """The fused kernel, found by asking the block's three branches about each input: they are linear."""
    channels = block.dense.kernel.shape[1] * block.groups
    plain = replace(block, stride=1, squeeze=None)
    zero = linear_part(plain, np.zeros((1, channels, 5, 5)))
    kernel = np.zeros((zero.shape[1], channels, 3, 3))
    for channel in range(channels):
        image = np.zeros((1, channels, 5, 5))
        image[0, channel, 2, 2] = 1
        kernel[:, channel] = (linear_part(plain, image) - zero)[0, :, 1:4, 1:4][:, ::-1, ::-1]
    per_group = channels // block.groups
    outputs = np.arange(len(kernel)) // (len(kernel) // block.groups)
    kernel = np.stack([k[g * per_group : (g + 1) * per_group] for k, g in zip(kernel, outputs, strict=True)])
    name = spelling.fused
    return {f"{name}.weight": kernel.astype(np.float32), f"{name}.bias": zero[0, :, 2, 2].astype(np.float32)}


def linear_part(block, x):
    y = block.dense.norm(convolve(x, block.dense.kernel, 1, block.groups))
    y = y + block.small.norm(convolve(x, block.small.kernel, 1, block.groups))
    return y if block.identity is None else y + block.identity(x)


def in_groups(name, array, reference):
    """The Model Zoo's convolutions hold one kernel for each group, in a list even where there is one group."""
    if array.ndim != 4 or ".se." in name:
        return [(name, array)]
    stage, position = 0, 0
    if not name.startswith("model.stage0."):
        stage, position = (int(part) for part in name.removeprefix("model.stage").split(".")[:2])
    parts = np.split(array, reference.stages[stage][position].groups)
    return [(f"{name.removesuffix('weight')}convs.{index}.weight", part) for index, part in enumerate(parts)]


@pytest.fixture
def write_file(cpu, torch_file, tmp_path):
    """(arrays, source) -> the file that this source publishes."""

    def write(arrays, source):
        if source == "pytorch":
            pieces = {f"module.{name}": torch_file.tensor(array) for name, array in arrays.items()}
            return torch_file.zipped(tmp_path / "net.pth", torch_file.dict_of({"model": torch_file.dict_of(pieces)}))
        if source == "timm":
            from safetensors.numpy import save_file

            save_file(arrays, tmp_path / "net.safetensors")
            return tmp_path / "net.safetensors"
        import mindspore as ms

        path = tmp_path / f"{source}.ckpt"
        ms.save_checkpoint([{"name": name, "data": ms.Tensor(array)} for name, array in arrays.items()], str(path))
        return path

    return write


def read_file(path, source):
    return convert.translated(path, sources.SOURCES[source])


def fused(found, variant, classes, file=Path("test")):
    return convert.network_of(found, variant, classes, deploy=True, file=file)


def narrow(variant):
    """The same depths, groups and branches with few channels, of which a 16th is still one."""
    return replace(variant, widths=tuple(max(16, width // 512 * 16) for width in variant.widths))


def logits_of(network, images):
    import mindspore as ms

    return network(ms.Tensor(images)).asnumpy()


def images_for(size, count=2):
    return np.random.default_rng(1).normal(size=(count, 3, size, size)).astype(np.float32)


@pytest.mark.parametrize("arch", PUBLISHED)
def test_every_variant_from_every_source_in_both_forms_gives_the_logits_of_the_reference(write_file, arch):
    variant, images = narrow(VARIANTS[arch]), images_for(32)
    reference = random_reference(variant, CLASSES)
    expected = reference(images)
    assert 0.1 < np.abs(expected).max() < 100, "logits of this size make 1e-4 mean something"
    for form in ("train", "deploy"):
        found, _ = read_file(write_file(spell(reference, "pytorch", form), "pytorch"), "pytorch")
        assert np.abs(logits_of(fused(found, variant, CLASSES), images) - expected).max() < 1e-4
        for source in SPELLINGS:
            again, _ = read_file(write_file(spell(reference, source, form), source), source)
            assert again.keys() == found.keys()
            for name, array in found.items():  # the same weights have the same logits
                np.testing.assert_array_equal(again[name], array, err_msg=f"{source} {form} {name}")


def test_the_real_a0_gives_the_logits_of_the_reference(write_file):
    variant, images = VARIANTS["RepVGG-A0"], images_for(64)
    reference = random_reference(variant, 1000, seed=2)
    found, left_out = read_file(write_file(spell(reference, "pytorch", "train"), "pytorch"), "pytorch")
    expected = reference(images)
    assert 0.1 < np.abs(expected).max() < 100
    assert np.abs(logits_of(fused(found, variant, 1000), images) - expected).max() < 1e-4
    counters = [name for name in left_out if name.endswith(".num_batches_tracked")]
    assert len(left_out) == len(counters) == 22 * 2 + 17  # two branches a block, and 17 identities


def test_every_missing_unused_and_misshapen_weight_is_named_and_the_network_is_not_made(write_file):
    variant = narrow(VARIANTS["RepVGG-A0"])
    arrays = spell(random_reference(variant, CLASSES), "pytorch", "train")
    del arrays["stage1.0.rbr_1x1.conv.weight"], arrays["stage2.1.rbr_identity.weight"]
    arrays["stage1.0.rbr_5x5.conv.weight"] = np.ones(3, np.float32)
    arrays["linear.weight"] = arrays["linear.weight"][:, 1:].copy()
    path = write_file(arrays, "pytorch")
    found, _ = read_file(path, "pytorch")
    with pytest.raises(CheckpointError) as caught:
        fused(found, variant, CLASSES, file=path)
    for line in (
        f"{path} is of another network",
        "missing: stages.1.0.branch_1x1.conv.weight",
        "missing: stages.2.1.branch_identity.gamma",
        "unused: stages.1.0.rbr_5x5.conv.weight",
        "classifier.weight: shape (5, 31), expected (5, 32)",
    ):
        assert line in str(caught.value)


def test_weights_of_another_variant_are_refused(write_file):
    found, _ = read_file(
        write_file(spell(random_reference(narrow(VARIANTS["RepVGG-A0"]), CLASSES), "timm", "deploy"), "timm"), "timm"
    )
    with pytest.raises(CheckpointError, match=r"missing: stages\.1\.2\.conv\.bias"):
        fused(found, narrow(VARIANTS["RepVGG-B0"]), CLASSES)


def test_another_number_of_classes_asks_for_the_labels(write_file):
    variant = narrow(VARIANTS["RepVGG-A0"])
    found, _ = read_file(write_file(spell(random_reference(variant, CLASSES), "own", "train"), "own"), "own")
    with pytest.raises(ConfigError, match="tells 5 classes apart, the labels are 1000: give --labels FILE"):
        fused(found, variant, 1000)


def test_of_a_run_with_averaged_weights_the_averages_are_taken(write_file):
    arrays = spell(random_reference(narrow(VARIANTS["RepVGG-A0"]), CLASSES), "own", "train")
    averages = {
        f"ema.{name}": 2 * array for name, array in arrays.items() if name.startswith(("stages.", "classifier."))
    }
    found, _ = read_file(write_file(arrays | averages, "own"), "own")
    assert found.keys() == {name.removeprefix("ema.") for name in averages}
    assert all(np.array_equal(array, averages[f"ema.{name}"].astype(np.float32)) for name, array in found.items())


def test_the_shipped_labels_are_those_of_imagenet():
    labels = convert.read_labels(convert.IMAGENET_LABELS)
    assert len(labels) == 1000
    assert [labels[i] for i in (0, 1, 207, 281, 999)] == [
        "tench", "goldfish", "golden retriever", "tabby", "toilet tissue"
    ]  # fmt: skip


def test_the_shipped_labels_are_in_the_order_of_the_data_that_they_are_from():
    table = ROOT.parent / "shared/data/imagenet_classes.csv"
    if not table.is_file():
        pytest.skip("the table ../shared/data/imagenet_classes.csv is absent")
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["label"] for row in rows] == convert.read_labels(convert.IMAGENET_LABELS)
    assert [int(row["class_id"]) for row in rows] == list(range(1000))
    assert rows == sorted(rows, key=lambda row: row["wnid"])


@pytest.mark.parametrize("content", [b"", b"# nothing else\n", b"cat\n\ndog\n", b"\xff\xfe"])
def test_labels_that_are_none_are_named(tmp_path, content):
    (tmp_path / "labels.txt").write_bytes(content)
    with pytest.raises(DataError, match=r"labels\.txt"):
        convert.read_labels(tmp_path / "labels.txt")


def run(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "training.convert", *map(str, arguments)],
        cwd=ROOT, capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip


def test_one_command_turns_official_weights_into_a_bundle(write_file, draw_image, tmp_path):
    import onnx
    from onnx.reference import ReferenceEvaluator

    from models import golden
    from models.preprocess import preprocess
    from models.store import open_bundle

    variant = VARIANTS["RepVGG-A0"]
    reference = random_reference(variant, CLASSES)
    path = write_file(spell(reference, "pytorch", "train"), "pytorch")
    (tmp_path / "images").mkdir()
    drawing = draw_image(0, "PNG", (300, 260))
    (tmp_path / "images" / "drawing.png").write_bytes(drawing)
    (tmp_path / "labels.txt").write_text("ant\nbee\ncat\ndog\neel\n")
    out = tmp_path / "store" / "mine" / "1"
    names = ("--from", "pytorch", "--arch", "RepVGG-A0", "--weights", path, "--labels", tmp_path / "labels.txt")
    done = run(*names, "--golden", tmp_path / "images", "--out", out)
    assert done.returncode == 0, done.stderr

    bundle = open_bundle(out)
    manifest = bundle.manifest
    assert (manifest.name, manifest.version, bundle.labels) == ("mine", "1", ("ant", "bee", "cat", "dog", "eel"))
    assert {(a.format, a.precision, a.batch) for a in manifest.artifacts} == {
        ("onnx", "fp32", "dynamic"),
        ("mindir", "fp32", "dynamic"),
    }
    assert manifest.preprocess == sources.preprocess_of(sources.SOURCES["pytorch"], "RepVGG-A0")
    assert (manifest.training.top1, manifest.training.top5) == (None, None)
    assert hashlib.sha256(path.read_bytes()).hexdigest() in manifest.training.recipe

    tensors, logits = golden.load(bundle)
    np.testing.assert_array_equal(tensors, preprocess(drawing, manifest.preprocess)[None])
    np.testing.assert_allclose(logits, reference(tensors), atol=1e-4, rtol=0)
    model = ReferenceEvaluator(onnx.load(bundle.path(bundle.artifact(["onnx"], "fp32"))))
    np.testing.assert_allclose(model.run(None, {"image": tensors})[0], logits, atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("more", "code", "words"),
    [
        (("--arch", "RepVGG-A9"), 78, "did you mean 'RepVGG-A"),
        (("--arch", "RepVGG-Tiny"), 78, "only its recipe knows its preprocessing"),
        (("--arch", "QARepVGG-A0"), 78, "QARepVGG-A0 cannot be read from github.com/DingXiaoH/RepVGG"),
        (("--labels", "gone.txt"), 66, "labels gone.txt cannot be read"),
        (("--weights", "gone.pth"), 66, "gone.pth cannot be read"),
        (("--weights", "gone.ckpt"), 66, "checkpoint gone.ckpt does not exist"),
        (("--out", "."), 78, ". exists: a published bundle is never changed"),  # said before gone.pth is looked at
        (("--from", "keras"), 2, "invalid choice: 'keras'"),
        (("--checkpoint", "net.ckpt"), 2, "argument --checkpoint: not allowed with argument --out"),
    ],
)
@pytest.mark.usefixtures("cpu")
def test_a_mistake_is_one_line_and_an_exit_code_and_nothing_is_written(capsys, tmp_path, more, code, words):
    flags = {"--from": "pytorch", "--arch": "RepVGG-A0", "--weights": "gone.pth", "--out": str(tmp_path / "net" / "1")}
    flags |= {more[0]: more[1]}
    try:
        found = convert.main([text for pair in flags.items() for text in pair])
    except SystemExit as leaving:
        found = leaving.code
    assert found == code
    assert words in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.fixture
def stripes(draw_image_folder, tmp_path):
    """-> flags that a training verb is given besides: two classes, images of the network's least size."""
    keys = {
        "arch": "RepVGG-A0",
        "num_classes": 2,
        "data_url": draw_image_folder(tmp_path / "data", {"train": 2, "val": 1}),
        "image_size": 32,
        "interpolation": "bilinear",
        "epochs": 1,
        "batch_size": 4,
        "device_target": "CPU",
        "save_dir": tmp_path / "runs",
    }
    return [text for key, value in keys.items() for text in (f"--{key}", str(value))]


def official_weights(write_file, tmp_path, classes):
    """-> the flags of `training.convert` but the one that says what is written."""
    path = write_file(spell(random_reference(VARIANTS["RepVGG-A0"], classes), "pytorch", "train"), "pytorch")
    (tmp_path / "labels.txt").write_text("".join(f"class {number}\n" for number in range(classes)))
    given = ("--from", "pytorch", "--arch", "RepVGG-A0", "--weights", path, "--labels", tmp_path / "labels.txt")
    return [str(flag) for flag in given]


def test_a_checkpoint_is_evaluated_and_exported_to_the_bundle_that_the_weights_become(
    write_file, draw_image, stripes, tmp_path, capsys
):
    from models import golden
    from models.store import open_bundle
    from training import eval as evaluation
    from training import export
    from training.network import repvgg
    from training.run import checkpoint

    weights = official_weights(write_file, tmp_path, 2)
    start, direct, again = (str(tmp_path / name) for name in ("start.ckpt", "direct/1", "again/1"))
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "drawing.png").write_bytes(draw_image(0, "PNG", (256, 256)))
    images = ("--golden", str(tmp_path / "images"))
    assert convert.main([*weights, "--checkpoint", start]) == 0
    assert "recipe keys of its source: image_size: 224, interpolation: bilinear, crop_pct: 0.875" in (
        capsys.readouterr().out
    )
    assert convert.main([*weights, "--out", direct, *images]) == 0
    pretrained = [*stripes, "--pretrained", start]
    assert export.main([*pretrained, "--image_size", "224", "--bundle", again, *images]) == 0
    assert evaluation.main(pretrained) == 0
    assert "images: 2" in capsys.readouterr().out
    parameters, saved = repvgg.weights(repvgg.build("RepVGG-A0", 2)), checkpoint.read(Path(start))
    assert checkpoint.start_from(parameters, saved, reset_classifier=False, source=Path(start)) == []

    (tensors, logits), (others, expected) = (golden.load(open_bundle(Path(folder))) for folder in (again, direct))
    np.testing.assert_array_equal(tensors, others)
    np.testing.assert_array_equal(logits, expected)


def test_training_for_other_classes_starts_from_a_checkpoint(write_file, stripes, tmp_path, capsys):
    from training import train

    weights, start = official_weights(write_file, tmp_path, CLASSES), str(tmp_path / "start.ckpt")
    assert convert.main([*weights, "--checkpoint", start]) == 0
    pretrained = [*stripes, "--pretrained", start]
    assert train.main(pretrained) == 66
    assert "fits but for its classifier" in capsys.readouterr().err
    assert train.main([*pretrained, "--reset_classifier", "True"]) == 0
    assert f"of {start}; new: classifier.weight, classifier.bias" in capsys.readouterr().out
    assert (tmp_path / "runs" / "RepVGG-A0" / "best.ckpt").is_file()


def test_weights_that_are_fused_already_are_refused_for_a_checkpoint(write_file):
    variant = narrow(VARIANTS["RepVGG-A0"])
    path = write_file(spell(random_reference(variant, CLASSES), "timm", "deploy"), "timm")
    found, _ = read_file(path, "timm")
    with pytest.raises(CheckpointError, match=f"{path} is fused .* the train form .* can become a bundle"):
        convert.network_of(found, variant, CLASSES, deploy=False, file=path)


@pytest.mark.parametrize(
    ("name", "words"),
    [("start.pth", "start.pth: the name of a checkpoint ends in .ckpt"), ("old.ckpt", "old.ckpt exists: give a new")],
)
def test_a_checkpoint_is_a_new_file(tmp_path, capsys, name, words):
    (tmp_path / "old.ckpt").write_text("precious")
    flags = ["--from", "mindcv", "--arch", "RepVGG-A0", "--weights", str(tmp_path / "old.ckpt")]
    assert convert.main([*flags, "--checkpoint", str(tmp_path / name)]) == 78
    assert words in capsys.readouterr().err
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("old.ckpt", "precious")]


def test_help_needs_no_framework():
    program = (
        "import sys, training.convert\n"
        "try: training.convert.main(['--help'])\n"
        "except SystemExit: print('mindspore' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.endswith("False\n")
