"""Every knob of the service, once: its name, unit, bounds and what it does.

1. a flag wins over its variable, the variable over what the platform sets, that over the default;
2. an unknown REPVGG_ variable is an error that names the nearest known one;
3. what Kubernetes injects for a Service named repvgg is ignored with one warning;
4. a wrong value is an error that names its flag or variable and what is allowed, and never shows a key.
"""

from __future__ import annotations

import argparse
import difflib
import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args, get_origin

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, ValidationError

from service.engine_table import ENGINES
from service.errors import ConfigError

ENGINE_NAMES = ("auto", *ENGINES)
if TYPE_CHECKING:
    EngineName = str
else:
    EngineName = Literal[ENGINE_NAMES]

PREFIX = "REPVGG_"
MEBIBYTE = 1 << 20
ROUTE = r"^(/[^{}]*)?$"
# The settings that choose an engine, for every verb that opens one.
ENGINE_FLAGS = (
    *("engine", "engine_python", "engine_provider", "lite_device", "lite_device_id"),
    *("precision", "engine_threads", "engine_slots", "max_batch_size"),
)

# What Google Vertex AI sets in a container: "Custom container requirements" in its documentation.
PLATFORM_VARIABLES = {
    "AIP_HTTP_PORT": "port",
    "AIP_HEALTH_ROUTE": "vertex_health_route",
    "AIP_PREDICT_ROUTE": "vertex_predict_route",
}

# What None means.
DEFAULTS = {
    "decode_threads": "the CPUs it may use",
    "engine_threads": "the CPUs it may use",
    "engine_slots": "as many as its threads on a CPU, else 1",
    "max_batch_size": "as many as pay, by measurement",
}

# Kubernetes docs, "Accessing the Service: Environment variables". A Service named repvgg-canary collides alike.
_INJECTED_NAME = re.compile(
    PREFIX + r"(\w+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP|SCTP)(_(ADDR|PORT|PROTO))?)"
)
_INJECTED_URL_NAME = re.compile(PREFIX + r"(\w+_)?PORT")
_INJECTED_URL = re.compile(r"(tcp|udp|sctp)://.*")


def _split_commas(value: Any) -> Any:
    return tuple(key.strip() for key in value.split(",") if key.strip()) if isinstance(value, str) else value


class Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str = Field("repvgg-tiny-cifar10", description="model bundle: a folder, or a name[/version] of the store")
    engine: EngineName = Field("auto", description="runtime that computes the logits")
    engine_provider: Literal["cpu", "cuda", "tensorrt", "cann", "openvino"] = Field(
        "cpu", description="execution provider of onnxruntime"
    )
    engine_python: str = Field("", description="interpreter that runs the engine in a process of its own")
    lite_device: Literal["cpu", "ascend310", "ascend310p"] = Field("cpu", description="where mindspore-lite computes")
    lite_device_id: int = Field(0, ge=0, le=63, description="which Ascend device mindspore-lite uses")
    precision: Literal["auto", "fp32", "bf16", "fp16", "int8"] = Field("auto", description="precision of the network")
    pixels: Literal["exact", "fast"] = Field(
        "exact", description="fast decodes large JPEGs at a fraction of their size, where the manifest vouches for it"
    )
    host: str = Field("127.0.0.1", description="address to listen on")
    port: int = Field(8000, ge=0, le=65535, description="TCP port; 0 takes any free one")
    workers: int = Field(1, ge=1, le=64, description="processes that serve on the port")
    max_batch_size: int | None = Field(None, ge=1, le=1024, description="most images the engine gets at once")
    max_queue_bytes: int = Field(
        256 * MEBIBYTE, ge=1, le=65536 * MEBIBYTE, description="memory for images that wait; more are refused at once"
    )
    max_images_per_request: int = Field(64, ge=1, le=65536, description="most images in one request")
    max_body_bytes: int = Field(32 * MEBIBYTE, ge=1024, le=4096 * MEBIBYTE, description="longest request body, bytes")
    max_image_pixels: int = Field(50_000_000, ge=1, le=1_000_000_000, description="largest image, width times height")
    objective_ms: int = Field(
        100, ge=1, le=600_000, description="latency that a batch must leave room for, milliseconds"
    )
    single_flight: Literal["on", "off"] = Field("on", description="equal images that come together are computed once")
    cache_bytes: int = Field(
        0, ge=0, le=65536 * MEBIBYTE, description="memory for the answers to the latest images; 0 keeps none"
    )
    timeout_ms: int = Field(
        10_000, ge=1, le=600_000, description="deadline of a request from the last byte of its body on, milliseconds"
    )
    upload_timeout_ms: int = Field(
        120_000, ge=1, le=3_600_000, description="most time that a body may take to arrive, milliseconds"
    )
    upload_min_bytes_per_second: int = Field(
        500, ge=1, le=1_000_000_000, description="a body that arrives more slowly is given up after 10 s"
    )
    decode_threads: int | None = Field(None, ge=1, le=256, description="threads that decode images, of each worker")
    engine_threads: int | None = Field(None, ge=1, le=256, description="threads of the engine, of each worker")
    engine_slots: int | None = Field(
        None, ge=1, le=256, description="batches that the engine computes at once, of each worker"
    )
    drain_seconds: float = Field(
        5.0, ge=0, le=3600, description="after SIGTERM, time to serve on while /readyz says no, seconds"
    )
    vertex_health_route: str = Field("", pattern=ROUTE, description="path where Vertex AI asks whether we are ready")
    vertex_predict_route: str = Field("", pattern=ROUTE, description="path where Vertex AI sends its instances")
    log_format: Literal["json", "console"] = Field("json", description="one JSON object a line, or text for people")
    api_keys: Annotated[tuple[SecretStr, ...], BeforeValidator(_split_commas)] = Field(
        (), description="comma-separated keys, one of which a client must send; a flag shows in ps, a variable does not"
    )


def load_settings(flags: Mapping[str, object], environ: Mapping[str, str]) -> tuple[Settings, list[str]]:
    """Flags (None = not given) > REPVGG_ variables (empty = not given) > PLATFORM_VARIABLES > defaults -> settings and
    warnings.

    `flags` may hold more than settings (a whole argparse namespace). Raises ConfigError.
    """
    injected = {name for name, value in environ.items() if _is_injected(name, value)}
    values: dict[str, object] = {}
    sources: dict[str, str] = {}
    for variable, name in PLATFORM_VARIABLES.items():
        if text := environ.get(variable):
            values[name], sources[name] = text, variable
    for variable, text in environ.items():
        if variable.startswith(PREFIX) and variable not in injected:
            name = _setting_of(variable)
            if text:
                values[name], sources[name] = text, variable
    for name in Settings.model_fields:
        if flags.get(name) is not None:
            values[name], sources[name] = flags[name], flag_name(name)
    try:
        settings = Settings.model_validate(values)
    except ValidationError as error:
        wrong = dict.fromkeys(str(item["loc"][0]) for item in error.errors())
        raise ConfigError("; ".join(_describe_wrong(name, sources[name], values[name]) for name in wrong)) from None
    return settings, _warnings(injected)


def _is_injected(name: str, value: str) -> bool:
    url = _INJECTED_URL_NAME.fullmatch(name) and _INJECTED_URL.fullmatch(value)
    return bool(_INJECTED_NAME.fullmatch(name) or url)


def _warnings(injected: set[str]) -> list[str]:
    if not injected:
        return []
    names = ", ".join(sorted(injected))
    return [f"ignored what Kubernetes injects for a Service of this name: {names}; set enableServiceLinks: false"]


def _setting_of(variable: str) -> str:
    known = [variable_name(name) for name in Settings.model_fields]
    if variable not in known:
        nearest = difflib.get_close_matches(variable, known, n=1, cutoff=0.0)[0]
        raise ConfigError(f"{variable} is no setting; the nearest one is {nearest}")
    return variable.removeprefix(PREFIX).lower()


def _describe_wrong(name: str, source: str, value: object) -> str:
    shown = "" if name == "api_keys" else f"={value}"
    return f"{source}{shown} is not allowed: it must be {allowed(name)}"


def variable_name(name: str) -> str:
    return PREFIX + name.upper()


def flag_name(name: str) -> str:
    return "--" + name.replace("_", "-")


def allowed(name: str) -> str:
    """The values a setting may have, in words: `one of json, console`, `a whole number in 1..1024`."""
    field = Settings.model_fields[name]
    if get_origin(field.annotation) is Literal:
        return "one of " + ", ".join(get_args(field.annotation))
    bounds = {type(bound).__name__: bound for bound in field.metadata}
    if "Ge" in bounds and "Le" in bounds:
        kind = "a number" if field.annotation is float else "a whole number"
        return f"{kind} in {bounds['Ge'].ge}..{bounds['Le'].le}"
    return "a path that begins with /" if name.endswith("_route") else "text"


def add_flags(parser: argparse.ArgumentParser, names: Iterable[str] = tuple(Settings.model_fields)) -> None:
    """One flag a setting, unparsed and None when not given: `load_settings` checks flags and variables alike."""
    for name in names:
        field = Settings.model_fields[name]
        wanted = allowed(name)
        limits = "" if wanted == "text" else f": {wanted}"
        default = DEFAULTS.get(name) or {(): "none", "": "none"}.get(field.default, field.default)
        parser.add_argument(
            flag_name(name),
            metavar="N" if "number" in wanted else name.rpartition("_")[2].upper(),
            help=f"{field.description}{limits} (default {default}; {variable_name(name)})",
        )
