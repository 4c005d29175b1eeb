"""The reference pages, generated from the code that they describe: nothing in them is typed by hand."""

from __future__ import annotations

import asyncio
import io
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import redirect_stdout, suppress
from importlib import import_module
from pathlib import Path
from types import NoneType
from typing import Any, Literal, get_args, get_origin
from unittest.mock import patch

from fastapi import FastAPI
from prometheus_client import CollectorRegistry, Metric
from pydantic.fields import FieldInfo

from service.api.problems import CODES
from service.app import create_app
from service.cli import VERBS, build_parser
from service.settings import DEFAULTS, PLATFORM_VARIABLES, Settings, allowed, flag_name, variable_name
from training import errors as training_errors
from training.config.keys import TrainConfig

TRAINING = Path(training_errors.__file__).parent
COLUMNS = "84"  # of the --help texts: as wide as a page of the site
TYPES = {str: "text", int: "whole number", float: "number", bool: "True or False", Path: "path", NoneType: "None"}
SUFFIXES = {"counter": "_total", "info": "_info"}  # which a scrape appends to the names of metrics
BOUNDS = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}


def pages() -> dict[str, str]:
    """Path in the site -> Markdown."""
    registry = CollectorRegistry()
    app = create_app(Settings(engine="onnxruntime", precision="fp32"), registry=registry)
    written = {
        "settings": settings(),
        "command-line": command_line(),
        "http": http(app),
        "errors": problem_codes(),
        "metrics": metrics(asyncio.run(collect(app, registry))),
        "recipe-keys": recipe_keys(),
        "training-commands": training_commands(),
    }
    return {f"reference/{name}.md": text for name, text in written.items()}


def page(title: str, *paragraphs: str) -> str:
    return "\n\n".join((f"# {title}", *paragraphs)) + "\n"


def table(head: Sequence[str], rows: Iterator[Sequence[object]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines)


def code(text: object) -> str:
    return f"`{text}`" if str(text) else ""


def settings() -> str:
    rows = (
        (
            f"{code(flag_name(name))}<br>{code(variable_name(name))}",
            _default(name, field),
            allowed(name),
            field.description,
        )
        for name, field in Settings.model_fields.items()
    )
    platform = table(("variable", "setting"), ((code(v), code(name)) for v, name in PLATFORM_VARIABLES.items()))
    return page(
        "Settings",
        "A flag of `repvgg serve` takes precedence over its variable, the variable over the variables of a platform, "
        "and those over the default. An unknown `REPVGG_` variable is an error that names the nearest known one.",
        table(("flag, variable", "default", "allowed", "description"), rows),
        "Google Vertex AI sets these variables:",
        platform,
    )


def _default(name: str, field: FieldInfo) -> str:
    return DEFAULTS.get(name) or (code(field.default) if field.default not in ("", ()) else "none")


def command_line() -> str:
    exits = re.split(r", (?=\d)", (build_parser().epilog or "").removeprefix("exit codes: "))
    with patch.dict(os.environ, COLUMNS=COLUMNS, NO_COLOR="1"):
        helps = [f"## repvgg {verb}\n\n{_listing(_help_of(verb))}" for verb in VERBS]
    return page(
        "Command line",
        "`python -m service` is the same as `repvgg`.",
        table(("exit code", "meaning"), (text.split(" ", 1) for text in exits)),
        *helps,
    )


def _help_of(verb: str) -> str:
    return printed_by(lambda: build_parser().parse_args([verb, "--help"]))


def printed_by(program: Any) -> str:
    """What a program prints before `--help` ends it."""
    with redirect_stdout(io.StringIO()) as out, suppress(SystemExit):
        program()
    return out.getvalue().strip()


def _listing(text: str) -> str:
    return f"```text\n{text}\n```"


def http(app: FastAPI) -> str:
    document = app.openapi()
    sections = [
        _operation(method.upper(), path, operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]
    return page(
        "HTTP",
        "A running service has the machine-readable version at `/openapi.json`, with schemas and examples. Errors are "
        "problem documents (RFC 9457).",
        *sections,
    )


def _operation(method: str, path: str, operation: dict[str, Any]) -> str:
    parts = [f"## {method} {path}", operation.get("description", operation.get("summary", ""))]
    if parameters := operation.get("parameters"):
        rows = ((code(item["name"]), item["in"], item.get("description", "")) for item in parameters)
        parts.append(table(("parameter", "in", "description"), rows))
    if body := operation.get("requestBody"):
        parts.append(f"Body: {', '.join(code(kind) for kind in body['content'])}. {body.get('description', '')}")
    rows = (
        (status, ", ".join(code(kind) for kind in answer.get("content", {})), answer["description"])
        for status, answer in operation["responses"].items()
    )
    return "\n\n".join([*parts, table(("status", "body", "description"), rows)])


def problem_codes() -> str:
    rows = ((status, code(name), title) for name, (status, title) in CODES.items())
    return page(
        "Errors",
        "Every error of the service is `application/problem+json` (RFC 9457) with one of these in `code`. A 503 also "
        "has `Retry-After` and `retry_after_ms`.",
        table(("status", "code", "title"), rows),
    )


async def collect(app: FastAPI, registry: CollectorRegistry) -> list[Metric]:
    """The metrics of a service with a model."""
    async with app.router.lifespan_context(app):
        await app.state.lifecycle.opened.wait()
        return sorted(registry.collect(), key=lambda family: (not family.name.startswith("repvgg_"), family.name))


def metrics(families: list[Metric]) -> str:
    rows = (
        (
            code(family.name + SUFFIXES.get(family.type, "")),
            family.type,
            _labels(family),
            family.documentation,
        )
        for family in families
    )
    return page(
        "Metrics",
        "`GET /metrics` returns Prometheus text or OpenMetrics. Histograms have `_bucket`, `_sum` and `_count`, "
        "summaries the last two. Times are in seconds. Every series exists with value 0 from the start.",
        table(("name", "type", "labels", "description"), rows),
    )


def _labels(family: Metric) -> str:
    return ", ".join(dict.fromkeys(code(name) for sample in family.samples for name in sample.labels if name != "le"))


def recipe_keys() -> str:
    rows = (
        (code(name), _type(field), code(field.default), field.description or "")
        for name, field in TrainConfig.model_fields.items()
    )
    return page(
        "Recipe keys",
        "The keys of a recipe (`--config FILE.yaml`). Each is also a flag (`--epochs 3`). An unknown key is an error "
        "that names the nearest known one. `--print-config` shows every value with its source.",
        table(("key", "value", "default", "description"), rows),
    )


def _type(field: FieldInfo) -> str:
    bounds = [
        f"{sign} {getattr(item, name)}"
        for item in field.metadata
        for name, sign in BOUNDS.items()
        if hasattr(item, name)
    ]
    return " ".join([_in_words(field.annotation), *bounds])


def _in_words(annotation: Any) -> str:
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return ", ".join(map(code, inner))
    if annotation in TYPES:
        return TYPES[annotation]
    if origin is tuple:
        return f"list of {_in_words(inner[0])}"
    if hasattr(annotation, "__metadata__"):
        return _in_words(inner[0])
    return " or ".join(_in_words(part) for part in inner)


def training_commands() -> str:
    with patch.dict(os.environ, COLUMNS=COLUMNS, NO_COLOR="1"):
        helps = [f"## training.{name}\n\n{_listing(_help_of_training(name))}" for name in training_verbs()]
    exits = _listing((training_errors.__doc__ or "").partition("\n\n")[2].strip())
    return page("Training commands", "Errors and their exit codes:", exits, *helps)


def training_verbs() -> list[str]:
    """The modules with a command line: `python -m training.NAME`."""
    return sorted(path.stem for path in TRAINING.glob("*.py") if 'prog="python -m training.' in path.read_text())


def _help_of_training(name: str) -> str:
    """Its --help, without the keys of a recipe, which have their own page."""
    text = printed_by(lambda: import_module(f"training.{name}").main(["--help"])).partition("keys of the recipe:")[0]
    return re.sub(r"(\s*\[--\w+ VALUE\])+", " [--KEY VALUE ...]", text).strip()
