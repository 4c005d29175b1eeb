"""A repository of the Hugging Face Hub -> a bundle."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from hub import bundles, catalogue, space
from hub.conversion import graphs_of_others, onnx_classifier, repvgg, timm, transformers
from hub.conversion.classifier import Classifier
from hub.errors import Unusable
from hub.progress import Progress
from hub.sources.huggingface import HuggingFace, Repository
from models import signing
from models.manifest import Manifest, Source
from models.store import MANIFEST

MAX_CONFIG_BYTES = 1 << 25
GRAPHS = ("onnx/model.onnx", "model.onnx")
PREPROCESSOR = "preprocessor_config.json"
WEIGHTS = "model.safetensors"
NEEDED = (
    f"a timm network has config.json and {WEIGHTS}; a transformers network config.json, preprocessor_config.json and "
    "onnx/model.onnx; a bundle manifest.json"
)


class Opened:
    """A repository whose files can be fetched."""

    def __init__(self, hub: HuggingFace, repository: Repository, progress: Progress) -> None:
        self.hub, self.repository, self.progress = hub, repository, progress

    def has(self, *paths: str) -> bool:
        return all(path in self.repository.files for path in paths)

    def file(self, path: str) -> Path:
        return self.hub.file(self.repository, path)

    def json(self, path: str) -> dict[str, Any]:
        try:
            content = json.loads(self.hub.file(self.repository, path, MAX_CONFIG_BYTES).read_bytes())
        except (ValueError, RecursionError) as error:
            raise Unusable(f"{path} of {self.repository.name} is not JSON: {error}") from None
        if not isinstance(content, dict):
            raise Unusable(f"{path} of {self.repository.name} is not a JSON object")
        return content

    def source(self, address: str, licence: str | None = None) -> Source:
        stated, published = self.hub.card(self.repository)
        published = published or catalogue.published(self.repository.name)
        return Source(address=address, revision=self.repository.commit, licence=stated or licence, published=published)

    def need_room(self, paths: list[str], store: Path) -> None:
        sizes = [self.repository.files[path].size for path in paths]
        missing = self.hub.missing_bytes(self.repository, paths)
        # The bundle is a little larger: golden images, and a second copy of the classifier's matrix.
        space.check({self.hub.cache: missing, store: sum(sizes) * 5 // 4})


def recognise(opened: Opened) -> Callable[[Opened, Path], tuple[Classifier, str | None]]:
    """The converter for it -> the classifier and the licence in its config. Raises Unusable."""
    config = opened.json("config.json") if opened.has("config.json") else {}
    graph_file = next(filter(opened.has, GRAPHS), None)
    if (
        opened.has(WEIGHTS)
        and timm.is_timm(config)
        and (config["architecture"] in timm.ARCHITECTURES or not graph_file)
    ):
        return from_timm
    if graph_file and config and (timm.is_timm(config) or opened.has(PREPROCESSOR)):
        return partial(from_onnx, graph_file)
    there = ", ".join(sorted(opened.repository.files)[:20]) or "no file"
    raise Unusable(f"{opened.repository.name} cannot become a bundle. It has: {there}. Needed: {NEEDED}")


def from_timm(opened: Opened, store: Path) -> tuple[Classifier, str | None]:
    """Raises HubError and WeightsError."""
    config = opened.json("config.json")
    variant = timm.architecture(config)
    classes, spec = timm.num_classes(config), timm.preprocessing(config)
    labels, origin = timm.labels(config, classes)
    opened.progress.say(f"  labels: {origin}")
    opened.need_room([WEIGHTS], store)
    entry = opened.repository.files[WEIGHTS]
    opened.progress.say("  fusing; the logits of both forms take minutes for the largest networks")
    classifier = repvgg.classifier(
        opened.file(WEIGHTS),
        "timm",
        variant,
        spec,
        labels,
        dataset="ImageNet-1k" if "ImageNet-1k" in origin else "as its source says",
        recipe=f"weights of timm: {WEIGHTS}, {entry.digest.kind} {entry.digest.value}",
        say=opened.progress.say,
    )
    licence = (config.get("pretrained_cfg") or {}).get("license")
    return classifier, licence if isinstance(licence, str) else None


def from_onnx(path: str, opened: Opened, store: Path) -> tuple[Classifier, str | None]:
    """Raises HubError."""
    config = opened.json("config.json")
    if timm.is_timm(config):
        spec = timm.preprocessing(config)
    else:
        transformers.check_is_classifier(config)
        spec = transformers.preprocessing(opened.json(PREPROCESSOR))
    labels, origin = transformers.labels(config)
    opened.progress.say(f"  labels: {origin}")
    opened.need_room([path], store)
    file = opened.file(path)
    for name in graphs_of_others.external_files(file):
        beside = str(PurePosixPath(path).parent / name)
        if not opened.has(beside):
            raise Unusable(f"{path} keeps weights in {name}, which {opened.repository.name} does not have")
        opened.need_room([beside], store)
        opened.file(beside)
    entry = opened.repository.files[path]
    classifier = onnx_classifier.classifier(
        file,
        spec,
        labels,
        variant=str(config.get("architecture") or config.get("model_type") or "unknown"),
        recipe=f"{path}, {entry.digest.kind} {entry.digest.value}",
        say=opened.progress.say,
    )
    return classifier, None


def is_bundle(opened: Opened) -> bool:
    return opened.has(MANIFEST)


def fetch_bundle(opened: Opened, store: Path) -> Path:
    """-> the folder in the cache with one of our bundles, complete. Raises HubError and BundleError."""
    content = opened.hub.file(opened.repository, MANIFEST, bundles.MAX_MANIFEST_BYTES).read_bytes()
    manifest = Manifest.from_json(content)
    files = bundles.named_files(manifest)
    _need(opened, files)
    opened.need_room(files, store)
    paths = {name: opened.file(name) for name in files}
    images = bundles.golden_images(manifest, paths[manifest.golden.file].read_bytes())
    _need(opened, images)
    for name in images:
        opened.file(name)
    if opened.has(signing.FILE):
        opened.hub.file(opened.repository, signing.FILE, signing.MAX_BYTES)
    return opened.file(MANIFEST).parent


def _need(opened: Opened, files: Iterable[str]) -> None:
    if missing := [name for name in files if not opened.has(name)]:
        raise Unusable(f"{MANIFEST} of {opened.repository.name} names {', '.join(missing)}, which does not exist")
