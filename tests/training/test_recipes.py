"""The shipped recipes: their header, their command, their evaluation, and the table in docs/recipes.md."""

import re
import shlex
from pathlib import Path

import pytest

from training.config import build, parse
from training.config.command_line import read_yaml
from training.data.pipeline import evaluation_spec
from weights.sources import SOURCES
from weights.variants import VARIANTS

ROOT = Path(__file__).parents[2]
ALL = sorted((ROOT / "training" / "recipes").glob("*.yaml"))
IMAGENET = [path for path in ALL if path.stem.endswith("_imagenet")]
SEED = Path(__file__).parent / "config" / "seed.yaml"
# No accuracy was published for these; QARepVGG has recipes where its authors' figures or log were available.
WITHOUT_FIGURE = {"RepVGG-B2g2", "RepVGG-B3g2", "RepVGG-Tiny", "RepVGG-Small", "RepVGG-Smoke"}
QAREPVGG = {"QARepVGG-A0", "QARepVGG-B0"}
DEVICES = 8

every_recipe = pytest.mark.parametrize("path", ALL, ids=lambda path: path.stem)
every_imagenet_recipe = pytest.mark.parametrize("path", IMAGENET, ids=lambda path: path.stem)


def config_of(path, **more):
    return build(read_yaml(path) | more, source=path.name)


def header(path):
    """The opening comment of a recipe, without the #."""
    lines = path.read_text().splitlines()
    return "\n".join(line.removeprefix("# ") for line in lines if line.startswith("#"))


def expected_accuracy(path):
    """-> top-1 as text, and the source of the figure."""
    found = re.search(
        r"^Expected: top-1 ([\d.]+) %(?:, top-5 [\d.]+ %)?; not measured here: (.+)$", header(path), re.MULTILINE
    )
    return found.groups()


@every_recipe
def test_the_header_of_a_recipe_has_a_valid_command(path, monkeypatch):
    monkeypatch.chdir(ROOT)
    run = re.search(r"^Run: +python -m training\.train (.*)$", header(path), re.MULTILINE)
    config, recipe, _ = parse(shlex.split(run[1]), prog="train", description="")
    assert (ROOT / recipe) == path
    assert path.stem == "finetune" or path.stem.startswith(config.arch.lower().replace("-", "_") + "_")


@every_imagenet_recipe
def test_a_recipe_for_imagenet_states_paper_expected_accuracy_and_devices(path):
    assert re.search(r"^Paper: +\w.+arXiv:\d{4}\.\d{5}\.$", header(path), re.MULTILINE)
    assert re.search(
        rf"^Devices: +{DEVICES}, each with batch_size {config_of(path).batch_size}:", header(path), re.MULTILINE
    )
    assert 70 < float(expected_accuracy(path)[0]) < 85


@every_imagenet_recipe
def test_the_learning_rate_is_written_out_for_the_images_of_an_update(path):
    config = config_of(path)
    total = DEVICES * config.batch_size
    assert config.base_lr == pytest.approx(0.1 * total / 256)
    assert f"{total} images per update, for which base_lr is 0.1 * {total} / 256 = {config.base_lr}." in header(path)
    assert f"--accumulate_steps {DEVICES}:" in header(path)


def test_every_variant_with_a_published_figure_has_a_recipe():
    published = {name for name, variant in VARIANTS.items() if variant.block == "repvgg"} - WITHOUT_FIGURE
    assert sorted(config_of(path).arch for path in IMAGENET) == sorted(published | QAREPVGG)


def test_the_recipe_of_a0_is_the_seed_projects_with_its_hidden_scaling_written_out():
    seed, ours = (config_of(path).model_dump() for path in (SEED, ROOT / "training/recipes/repvgg_a0_imagenet.yaml"))
    scaled = {key: pytest.approx(16 * seed[key]) for key in ("base_lr", "warmup_lr", "min_lr")}
    assert ours == seed | scaled


@every_imagenet_recipe
def test_a_recipe_evaluates_with_the_preprocessing_of_its_published_weights(path):
    config = config_of(path)
    spec = evaluation_spec(config)
    assert spec == SOURCES["own"].preprocess(config.arch)
    if config.arch == "RepVGG-A0":
        # the Model Zoo ignored colour profiles, as did the authors; training applies them
        assert spec.model_copy(update={"icc": "ignore"}) == SOURCES["modelzoo"].preprocess(config.arch)
        return
    if config.arch == "RepVGG-D2se":
        spec = evaluation_spec(config_of(path, image_size=320, crop_pct=1.0))
        assert "--image_size 320 --crop_pct 1.0" in header(path)
    # torchvision rounds the offset of the crop, MindData truncates it: a difference of at most one pixel
    theirs = {"crop_offset_rounding": "round", "icc": "ignore"}
    assert spec.model_copy(update=theirs) == SOURCES["pytorch"].preprocess(config.arch)


def deploy_cost(variant, image_size=224, num_classes=1000):
    """-> parameters and multiply-adds of the deploy form; without multiply-adds in biases, ReLU, pooling, sigmoid."""
    size = image_size
    parameters = multiply_adds = (variant.widths[-1]) * num_classes
    parameters += num_classes
    for block in variant.blocks():
        size = -(-size // block.stride)
        kernel = block.out_channels * block.in_channels // block.groups * 9
        parameters, multiply_adds = parameters + kernel + block.out_channels, multiply_adds + kernel * size**2
        if variant.squeeze_excite:
            inner = block.out_channels // 16
            parameters += 2 * block.out_channels * inner + inner + block.out_channels
            multiply_adds += 2 * block.out_channels * inner + block.out_channels * size**2
    return parameters, multiply_adds


@pytest.mark.parametrize(
    ("arch", "billions", "digit"),
    [
        ("RepVGG-A0", 2.7229 / 2, 1e-4),  # half of the GFLOP in the README of github.com/jahongir7174/repvgg
        ("RepVGG-B2", 18.4, 0.1),  # this and the next are the paper's, from paperswithcode.com
        ("RepVGG-B2g4", 11.3, 0.1),
    ],
)
def test_the_multiply_adds_are_the_published_ones(arch, billions, digit):
    assert deploy_cost(VARIANTS[arch])[1] / 1e9 == pytest.approx(billions, abs=digit / 2)


def table_row(path):
    config, (top1, source) = config_of(path), expected_accuracy(path)
    parameters, multiply_adds = deploy_cost(VARIANTS[config.arch])
    link = f"[{path.stem}](../training/recipes/{path.name})"
    cells = (link, config.arch, f"{parameters / 1e6:.2f}", f"{multiply_adds / 1e9:.2f}", config.epochs, top1, source)
    return f"| {' | '.join(map(str, cells))} |"


def test_the_table_in_the_documentation_matches_the_recipes():
    rows = [line for line in (ROOT / "docs" / "recipes.md").read_text().splitlines() if line.startswith("| [")]
    assert rows == [table_row(path) for path in IMAGENET]
