"""The announcement that the service is ready: the same facts as fields for programs and as a table for people."""

from __future__ import annotations

from dataclasses import dataclass

from service.api.answers import served_model
from service.classify.classifier import Classifier
from service.engines.selection import engine_threads
from service.settings import MEBIBYTE, Settings


@dataclass(frozen=True)
class Banner:
    """`images_per_second`: of the engine alone, measured at start-up; `api_keys`: the number of keys."""

    url: str
    model_name: str
    model_version: str
    model_engine: str
    model_precision: str
    classes: int
    input_size: int
    device: str
    images_per_second: int
    max_batch_size: int
    engine_slots: int
    engine_threads: int
    decode_threads: int
    workers: int
    max_images_per_request: int
    max_body_bytes: int
    max_image_pixels: int
    timeout_ms: int
    api_keys: int
    keeps_images: str

    @classmethod
    def of(cls, url: str, classifier: Classifier, settings: Settings) -> Banner:
        model = {f"model_{name}": value for name, value in served_model(classifier).model_dump().items()}
        return cls(
            url=url,
            **model,
            classes=len(classifier.bundle.labels),
            input_size=classifier.engine.input_size,
            device=classifier.engine.device,
            images_per_second=round(1 / classifier.batcher.speed.image_s),
            max_batch_size=classifier.batcher.max_batch_size,
            engine_slots=classifier.batcher.slots,
            engine_threads=engine_threads(settings),
            decode_threads=classifier.decode_threads,
            workers=settings.workers,
            max_images_per_request=settings.max_images_per_request,
            max_body_bytes=settings.max_body_bytes,
            max_image_pixels=settings.max_image_pixels,
            timeout_ms=settings.timeout_ms,
            api_keys=len(settings.api_keys),
            keeps_images=settings.keep_if if settings.keep else "",
        )

    def headline(self) -> str:
        model, engine = f"{self.model_name} {self.model_version}", f"{self.model_engine} {self.model_precision}"
        return f"serving {model} with {engine} on {self.url}"

    def table(self) -> list[str]:
        rows = {
            "page": f"{self.url}/, its API at {self.url}/docs",
            "model": f"{self.classes} classes, {self.input_size} x {self.input_size} pixels",
            "engine": f"{self.model_engine} {self.model_precision} on {self.device}, {self.images_per_second} images/s",
            "batches": f"up to {self.max_batch_size} images, {self.engine_slots} in parallel",
            "threads": f"{self.engine_threads} for the engine, {self.decode_threads} for decoding"
            + (f", in each of {self.workers} workers" if self.workers > 1 else ""),
            "limits": f"{self.max_images_per_request} images, {self.max_body_bytes / MEBIBYTE:g} MiB and "
            f"{self.timeout_ms / 1000:g} s per request, {self.max_image_pixels / 1e6:g} megapixels per image",
            "keys": f"{self.api_keys}, of which clients must send one" if self.api_keys else "not required",
        }
        if self.keeps_images:
            rows["STORED"] = f"images whose answers are {self.keeps_images!r}, for labelling"
        return [f"  {name:<9}{text}" for name, text in rows.items()]
