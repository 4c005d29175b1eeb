"""Verify a model bundle and print its contents."""

from __future__ import annotations

import argparse
import json
import logging

from models import signing
from models.manifest import Manifest
from models.store import Bundle
from service.cli.bundles import verify
from service.engines.trusted import open_trusted
from service.observe import logs
from service.observe.logs import visible
from service.runtime.console import Console
from service.settings import add_flags, load_settings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bundle", metavar="BUNDLE", help="a folder, or a name[/version] in the store")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    verify.add_arguments(parser)
    add_flags(parser, ["verify_key"])


def run(arguments: argparse.Namespace, console: Console) -> int:
    """Raises BundleError, which names the missing or corrupt file; with --verify also whatever `verify` raises."""
    from models import golden  # imports the image library

    settings, _ = load_settings(vars(arguments), console.environ)
    bundle = open_trusted(settings.model_copy(update={"model": arguments.bundle}))
    images = len(golden.load(bundle)[0])  # verifies the golden images' checksums as well
    if arguments.verify:
        logs.configure("console", console.err, logging.WARNING)
        verify.verify(bundle, arguments.calls, settings, console, as_json=arguments.json)
    elif arguments.json:
        facts = {
            "folder": str(bundle.folder),
            "manifest": bundle.manifest.model_dump(mode="json"),
            "labels": bundle.labels,
            "golden_images": images,
        }
        print(json.dumps(facts), file=console.out)
    else:
        for name, fact in describe(bundle, images):
            print(visible(f"{name:<11} {fact}"), file=console.out)
    return 0


def describe(bundle: Bundle, golden_images: int) -> list[tuple[str, str]]:
    """(name, fact) pairs for people."""
    manifest = bundle.manifest
    network, spec, training = manifest.network, manifest.preprocess, manifest.training
    sides = "both sides" if spec.resize == "squash" else "short side"
    tolerances = ", ".join(f"{precision} {delta:g}" for precision, delta in manifest.golden.tolerance.items())
    scores = ", ".join(
        f"{name} {value:.2%}"
        for name, value in (("top-1", training.top1), ("top-5", training.top5))
        if value is not None
    )
    return [
        ("bundle", f"{manifest.name} {manifest.version}, written {manifest.created_at}"),
        ("folder", f"{bundle.folder} (all checksums match)"),
        ("network", f"{network.variant}, {network.num_classes} classes, {network.parameters:,} parameters"),
        ("input", f"{spec.input_size} x {spec.input_size} {spec.color}, mean {spec.mean}, std {spec.std}"),
        ("resize", f"{sides} to {spec.resize_size} ({spec.interpolation}), centre crop"),
        ("labels", _shortened(bundle.labels)),
        *[("artifact", _describe_artifact(bundle, index)) for index in range(len(manifest.artifacts))],
        ("golden", f"{golden_images} images, largest difference allowed: {tolerances}"),
        ("training", f"{training.recipe} on {training.dataset}, {training.epochs} epochs, {training.framework}"),
        ("accuracy", f"{scores} on {training.evaluated_on}" if scores else "not measured"),
        ("signatures", _describe_signatures(bundle)),
        *([("licence", training.licence)] if training.licence else []),
        *[("source", text) for text in _describe_source(manifest)],
        ("temperature", f"{manifest.temperature:.4g}"),
        *([("confidence", str(manifest.confidence))] if manifest.confidence else []),
        ("pixels", _describe_pixels(manifest)),
    ]


def _describe_source(manifest: Manifest) -> list[str]:
    if manifest.source is None:
        return []
    source, lines = manifest.source, [f"{manifest.source.address}, revision {manifest.source.revision}"]
    lines.append(f"licence {source.licence}" if source.licence else "it states no licence")
    if published := source.published:
        lines.append(f"top-1 {published.top1:.2%} on {published.dataset}, stated by {published.stated_by}")
    return lines


def _describe_signatures(bundle: Bundle) -> str:
    count = len(signing.read(bundle.folder))
    return f"{count} in {signing.FILE}; --verify-key checks them" if count else "none"


def _describe_pixels(manifest: Manifest) -> str:
    doubt = manifest.doubt_of_fast_pixels()
    return f"exact only: {doubt}" if doubt else f"exact, or fast: {manifest.accuracy and manifest.accuracy.fast_pixels}"


def _describe_artifact(bundle: Bundle, index: int) -> str:
    artifact = bundle.manifest.artifacts[index]
    megabytes = bundle.path(artifact).stat().st_size / 1e6
    batch = artifact.batch if artifact.batch == "dynamic" else "of " + ", ".join(str(size) for size in artifact.batch)
    return f"{artifact.format} {artifact.precision}, {artifact.file}, {megabytes:.3g} MB, batch {batch}"


def _shortened(labels: tuple[str, ...], most: int = 10) -> str:
    shown = ", ".join(labels[:most])
    return f"{shown}, ... ({len(labels)} in total)" if len(labels) > most else shown
