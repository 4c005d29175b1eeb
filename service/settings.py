"""All settings of the service, each defined once: name, unit, bounds and purpose.

1. a flag overrides its variable, the variable overrides the platform's, and that overrides the default;
2. an unknown REPVGG_ variable is an error that suggests the nearest known one;
3. variables that Kubernetes injects for a Service named repvgg are ignored with one warning;
4. an invalid value is an error that names its flag or variable and the allowed values, and never shows a key;
5. a value that is given but blank is an error if it could open access: no keys, no host, no proxies.
"""

from __future__ import annotations

import argparse
import difflib
import re
from collections.abc import Iterable, Mapping
from ipaddress import IPv4Network, IPv6Network
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args, get_origin

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, ValidationError

from service.conditions import FORM, Condition
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
# The settings that select an engine, for every verb that opens one.
ENGINE_FLAGS = (
    *("engine", "engine_python", "engine_provider", "lite_device", "lite_device_id"),
    *("precision", "engine_threads", "engine_slots", "max_batch_size"),
)

# Set by Google Vertex AI in a container: "Custom container requirements" in its documentation.
PLATFORM_VARIABLES = {
    "AIP_HTTP_PORT": "port",
    "AIP_HEALTH_ROUTE": "vertex_health_route",
    "AIP_PREDICT_ROUTE": "vertex_predict_route",
}

# Settings with a form of their own.
FORMS = {
    "api_keys": "keys, comma-separated",
    "trusted_proxies": "addresses or networks (10.0.0.0/8), comma-separated",
    "keep_if": FORM,
}

# What None stands for, and what else needs other words.
DEFAULTS = {
    "strict_version": "off",
    "decode_threads": "the number of usable CPUs",
    "engine_threads": "the number of usable CPUs",
    "engine_slots": "the engine's threads on a CPU, otherwise 1",
    "max_batch_size": "measured at start-up",
}

# Kubernetes docs, "Accessing the Service: Environment variables". A Service named repvgg-canary collides too.
_INJECTED_NAME = re.compile(
    PREFIX + r"(\w+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP|SCTP)(_(ADDR|PORT|PROTO))?)"
)
_INJECTED_URL_NAME = re.compile(PREFIX + r"(\w+_)?PORT")
_INJECTED_URL = re.compile(r"(tcp|udp|sctp)://.*")


def _split_commas(value: Any) -> Any:
    """Raises ValueError for text without a single item."""
    if not isinstance(value, str):
        return value
    items = tuple(item.strip() for item in value.split(",") if item.strip())
    if not items or not all(item.isprintable() for item in items):
        raise ValueError
    return items


def _not_blank(value: str) -> str:
    if value and not value.strip():
        raise ValueError
    return value


def _condition(value: str) -> str:
    """Raises ValueError."""
    return Condition.read(value).text


# Empty is allowed where it is the default.
Text = Annotated[str, AfterValidator(_not_blank)]


class Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    model: Text = Field(
        "repvgg-small-tinyimagenet",
        min_length=1,
        description="model bundle: a folder, a name[/version] in the store, or an address for `repvgg pull`",
    )
    verify_key: Text = Field(
        "", description="file of public ed25519 keys: only bundles signed with one of them are opened"
    )
    strict_version: bool = Field(
        False, description="refuse to start with an older version of the model if the newest cannot serve"
    )
    engine: EngineName = Field("auto", description="runtime that computes the logits")
    engine_provider: Literal["cpu", "cuda", "tensorrt", "cann", "openvino"] = Field(
        "cpu", description="execution provider of onnxruntime"
    )
    engine_python: Text = Field("", description="Python interpreter that runs the engine in a separate process")
    lite_device: Literal["cpu", "ascend310", "ascend310p"] = Field("cpu", description="device of mindspore-lite")
    lite_device_id: int = Field(0, ge=0, le=63, description="Ascend device number for mindspore-lite")
    precision: Literal["auto", "fp32", "bf16", "fp16", "int8"] = Field("auto", description="precision of the network")
    pixels: Literal["exact", "fast"] = Field(
        "exact", description="fast decodes large JPEGs at a reduced size, if the manifest allows it"
    )
    host: Text = Field("127.0.0.1", min_length=1, description="address to listen on")
    port: int = Field(8000, ge=0, le=65535, description="TCP port; 0 picks a free one")
    workers: int = Field(1, ge=1, le=64, description="worker processes that share the port")
    max_batch_size: int | None = Field(None, ge=1, le=1024, description="largest batch given to the engine")
    max_queue_bytes: int = Field(
        256 * MEBIBYTE,
        ge=1,
        le=65536 * MEBIBYTE,
        description="memory for queued images, bytes; beyond it requests are rejected",
    )
    max_images_per_request: int = Field(64, ge=1, le=65536, description="most images in one request")
    max_body_bytes: int = Field(32 * MEBIBYTE, ge=1024, le=4096 * MEBIBYTE, description="largest request body, bytes")
    max_image_pixels: int = Field(
        50_000_000, ge=1, le=1_000_000_000, description="largest image, pixels (width x height)"
    )
    objective_ms: int = Field(
        100, ge=1, le=600_000, description="latency objective, milliseconds, which limits the batch size"
    )
    single_flight: Literal["on", "off"] = Field(
        "on", description="compute identical images that arrive together only once"
    )
    cache_bytes: int = Field(
        0,
        ge=0,
        le=65536 * MEBIBYTE,
        description="memory for caching answers to recent images, bytes; 0 turns the cache off",
    )
    timeout_ms: int = Field(
        10_000, ge=1, le=600_000, description="deadline of a request, milliseconds from the last byte of its body"
    )
    upload_timeout_ms: int = Field(
        120_000, ge=1, le=3_600_000, description="longest time for the body of a request to arrive, milliseconds"
    )
    upload_min_bytes_per_second: int = Field(
        500, ge=1, le=1_000_000_000, description="uploads that are slower than this are aborted after 10 s"
    )
    decode_threads: int | None = Field(None, ge=1, le=256, description="image-decoding threads per worker")
    engine_threads: int | None = Field(None, ge=1, le=256, description="engine threads per worker")
    engine_slots: int | None = Field(
        None, ge=1, le=256, description="batches the engine computes in parallel, per worker"
    )
    drain_seconds: float = Field(
        5.0, ge=0, le=3600, description="seconds to keep serving after SIGTERM, while /readyz reports not ready"
    )
    vertex_health_route: str = Field("", pattern=ROUTE, description="path of the Vertex AI health check")
    vertex_predict_route: str = Field("", pattern=ROUTE, description="path of Vertex AI predictions")
    log_format: Literal["json", "console"] = Field("json", description="one JSON object per line, or readable text")
    feedback: int = Field(
        0, ge=0, le=10_000_000, description="images per worker whose answers POST /feedback can judge; 0 turns it off"
    )
    keep: Text = Field(
        "", description="folder where images are stored for labelling, with their answers; empty stores nothing"
    )
    keep_if: Annotated[str, AfterValidator(_condition)] = Field(
        "not confident", description="which images are stored there, by their answers"
    )
    keep_bytes: int = Field(
        1024 * MEBIBYTE,
        ge=MEBIBYTE,
        le=65536 * MEBIBYTE * 1024,
        description="size of that folder, bytes; the oldest images are deleted first",
    )
    api_keys: Annotated[tuple[SecretStr, ...], BeforeValidator(_split_commas)] = Field(
        (),
        description="API keys; a client must send one; flags are visible in ps, variables are not",
    )
    trusted_proxies: Annotated[tuple[IPv4Network | IPv6Network, ...], BeforeValidator(_split_commas)] = Field(
        (), description="proxies whose X-Forwarded-For is trusted"
    )


def load_settings(flags: Mapping[str, object], environ: Mapping[str, str]) -> tuple[Settings, list[str]]:
    """Flags (None: not given) > REPVGG_ variables (empty: not given) > PLATFORM_VARIABLES > defaults -> the settings
    and warnings.

    `flags` may contain other names as well (a whole argparse namespace). Raises ConfigError.
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
    return [
        f"ignored variables that Kubernetes injects for a Service of this name: {names}; set enableServiceLinks: false"
    ]


def _setting_of(variable: str) -> str:
    known = [variable_name(name) for name in Settings.model_fields]
    if variable not in known:
        nearest = difflib.get_close_matches(variable, known, n=1, cutoff=0.0)[0]
        raise ConfigError(f"{variable} is not a setting; did you mean {nearest}?")
    return variable.removeprefix(PREFIX).lower()


def _describe_wrong(name: str, source: str, value: object) -> str:
    shown = "" if name == "api_keys" else f"={value}"
    wanted = allowed(name)
    return f"{source}{shown} is invalid: it must be {'text that is not blank' if wanted == 'text' else wanted}"


def variable_name(name: str) -> str:
    return PREFIX + name.upper()


def flag_name(name: str) -> str:
    return "--" + name.replace("_", "-")


def allowed(name: str) -> str:
    """The allowed values in words: `one of json, console`, `a whole number in 1..1024`."""
    field = Settings.model_fields[name]
    if get_origin(field.annotation) is Literal:
        return "one of " + ", ".join(get_args(field.annotation))
    if field.annotation is bool:
        return "on or off"
    bounds = {type(bound).__name__: bound for bound in field.metadata}
    if "Ge" in bounds and "Le" in bounds:
        kind = "a number" if field.annotation is float else "a whole number"
        return f"{kind} in {bounds['Ge'].ge}..{bounds['Le'].le}"
    if name in FORMS:
        return FORMS[name]
    return "a path that starts with /" if name.endswith("_route") else "text"


def add_flags(parser: argparse.ArgumentParser, names: Iterable[str] = tuple(Settings.model_fields)) -> None:
    """One flag per setting, unparsed, and None if not given: `load_settings` validates flags and variables alike."""
    for name in names:
        field = Settings.model_fields[name]
        wanted = allowed(name)
        limits = "" if wanted == "text" else f"{wanted}; "
        default = DEFAULTS.get(name) or {(): "none", "": "none"}.get(field.default, field.default)
        switch: dict[str, Any] = {"nargs": "?", "const": "on", "metavar": "on|off"} if field.annotation is bool else {}
        parser.add_argument(
            flag_name(name),
            **{"metavar": "N" if "number" in wanted else name.rpartition("_")[2].upper()} | switch,
            help=f"{field.description} ({limits}default {default}; {variable_name(name)})",
        )
