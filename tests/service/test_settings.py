from __future__ import annotations

import argparse

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import ConfigError
from service.settings import (
    Settings,
    add_flags,
    allowed,
    flag_name,
    load_settings,
    variable_name,
)


def parse(*arguments: str) -> dict[str, object]:
    parser = argparse.ArgumentParser()
    parser.add_argument("verb", nargs="?")
    add_flags(parser)
    return vars(parser.parse_args(arguments))


def test_a_flag_wins_over_its_variable_the_variable_over_the_default() -> None:
    environ = {"REPVGG_PORT": "1", "REPVGG_TIMEOUT_MS": "2", "PATH": "/bin"}
    settings, warnings = load_settings(parse("--port", "3"), environ)
    assert (settings.port, settings.timeout_ms, settings.max_batch_size) == (3, 2, None)
    assert warnings == []


def test_an_empty_variable_is_not_given() -> None:
    assert load_settings({}, {"REPVGG_DECODE_THREADS": "", "REPVGG_API_KEYS": ""})[0] == Settings()


def test_a_variable_wins_over_what_the_platform_sets_that_over_the_default() -> None:
    vertex = {"AIP_HTTP_PORT": "8080", "AIP_HEALTH_ROUTE": "/health", "AIP_PREDICT_ROUTE": "/predict"}
    settings, _ = load_settings({}, vertex)
    assert (settings.port, settings.vertex_health_route, settings.vertex_predict_route) == (8080, "/health", "/predict")
    assert load_settings({}, vertex | {"REPVGG_PORT": "1"})[0].port == 1
    assert load_settings(parse("--port", "2"), vertex)[0].port == 2
    with pytest.raises(
        ConfigError, match=r"^AIP_PREDICT_ROUTE=predict is invalid: it must be a path that starts with /$"
    ):
        load_settings({}, {"AIP_PREDICT_ROUTE": "predict"})


@pytest.mark.parametrize(
    ("unknown", "nearest"),
    [("REPVGG_MAX_BATCH", "REPVGG_MAX_BATCH_SIZE"), ("REPVGG_PROT", "REPVGG_PORT"), ("REPVGG_", "REPVGG_PORT")],
)
def test_an_unknown_variable_is_an_error_that_names_the_nearest_known_one(unknown: str, nearest: str) -> None:
    with pytest.raises(ConfigError, match=f"^{unknown} is not a setting; did you mean {nearest}\\?$"):
        load_settings({}, {unknown: "1"})


def test_what_kubernetes_injects_for_a_service_named_repvgg_is_ignored_with_one_warning() -> None:
    injected = {
        "REPVGG_PORT": "tcp://10.0.0.11:8000",
        "REPVGG_SERVICE_HOST": "10.0.0.11",
        "REPVGG_SERVICE_PORT": "8000",
        "REPVGG_SERVICE_PORT_HTTP": "8000",
        "REPVGG_PORT_8000_TCP": "tcp://10.0.0.11:8000",
        "REPVGG_PORT_8000_TCP_PROTO": "tcp",
        "REPVGG_PORT_8000_TCP_PORT": "8000",
        "REPVGG_PORT_8000_TCP_ADDR": "10.0.0.11",
        "REPVGG_CANARY_PORT": "tcp://10.0.0.12:8000",
        "REPVGG_CANARY_SERVICE_HOST": "10.0.0.12",
    }
    settings, warnings = load_settings({}, injected | {"REPVGG_TIMEOUT_MS": "5"})
    assert (settings.port, settings.timeout_ms) == (8000, 5)
    [warning] = warnings
    assert all(name in warning for name in injected)


@pytest.mark.parametrize(
    ("name", "value", "wanted"),
    [
        ("port", "99999", "a whole number in 0..65535"),
        ("port", "http", "a whole number in 0..65535"),
        ("max_batch_size", "0", "a whole number in 1..1024"),
        ("decode_threads", "0", "a whole number in 1..256"),
        ("drain_seconds", "-1", "a number in 0..3600"),
        ("drain_seconds", "nan", "a number in 0..3600"),
        ("engine", "tensorrt", "one of auto, onnxruntime, openvino, ncnn, mindspore-lite, mindspore, fake"),
        ("log_format", "xml", "one of json, console"),
    ],
)
def test_a_wrong_value_names_its_flag_or_variable_and_what_is_allowed(name: str, value: str, wanted: str) -> None:
    with pytest.raises(ConfigError) as by_variable:
        load_settings({}, {variable_name(name): value})
    assert str(by_variable.value) == f"{variable_name(name)}={value} is invalid: it must be {wanted}"
    with pytest.raises(ConfigError) as by_flag:
        load_settings(parse(f"{flag_name(name)}={value}"), {})
    assert str(by_flag.value) == f"{flag_name(name)}={value} is invalid: it must be {wanted}"


def test_every_wrong_value_is_named() -> None:
    with pytest.raises(ConfigError, match=r"^(?=.*REPVGG_PORT)(?=.*--engine)"):
        load_settings(parse("--engine", "x"), {"REPVGG_PORT": "x"})


def test_keys_are_split_at_commas_and_never_shown() -> None:
    settings, _ = load_settings({}, {"REPVGG_API_KEYS": "first key, second-key,"})
    assert [key.get_secret_value() for key in settings.api_keys] == ["first key", "second-key"]
    assert "key" not in f"{settings!r} {settings.model_dump_json()}".replace("api_keys", "").replace("verify_key", "")


@pytest.mark.parametrize("blank", ["", " ", ",", " , ,", "\t", "\x00", "a\nb", "\u200b"])
@pytest.mark.parametrize("flag", ["--api-keys", "--trusted-proxies"])
def test_a_list_that_is_given_but_has_no_usable_item_is_an_error(flag: str, blank: str) -> None:
    variable = variable_name(flag.removeprefix("--").replace("-", "_"))
    given: list[tuple[dict[str, object], dict[str, str], str]] = [(parse(flag, blank), {}, flag)]
    if blank:  # an empty variable is not given
        given.append(({}, {variable: blank}, variable))
    for flags, environ, source in given:
        with pytest.raises(ConfigError, match=f"(?s)^{source}.* is invalid: it must be .*, comma-separated$"):
            load_settings(flags, environ)


@pytest.mark.parametrize(("flag", "blanks"), [("--host", ("", " ")), ("--model", ("", " ")), ("--engine-python", " ")])
def test_text_that_is_given_but_blank_is_an_error(flag: str, blanks: tuple[str, ...]) -> None:
    for blank in blanks:
        with pytest.raises(ConfigError, match=f"^{flag}={blank} is invalid: it must be text that is not blank$"):
            load_settings(parse(flag, blank), {})


def test_a_wrong_key_is_not_shown() -> None:
    with pytest.raises(ConfigError) as error:
        load_settings({"api_keys": [["secret"]]}, {})
    assert "--api-keys is invalid" in str(error.value)
    assert "secret" not in str(error.value)


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Settings().port = 1


def test_the_help_names_every_setting_with_bounds_default_and_variable() -> None:
    parser = argparse.ArgumentParser()
    add_flags(parser)
    text = " ".join(parser.format_help().split())
    for name, field in Settings.model_fields.items():
        assert flag_name(name) in text
        assert variable_name(name) in text
        assert field.description
        if allowed(name) != "text":
            assert allowed(name) in text
    assert "(a whole number in 1..1024; default measured at start-up; REPVGG_MAX_BATCH_SIZE)" in text
    assert "(a whole number in 1..600000; default 10000; REPVGG_TIMEOUT_MS)" in text


@given(
    value=st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])),
    name=st.sampled_from(sorted(Settings.model_fields)),
)
def test_any_text_is_a_setting_or_a_config_error(value: str, name: str) -> None:
    try:
        settings, _ = load_settings({}, {variable_name(name): value})
    except ConfigError as error:
        text = str(error)
    else:
        text = settings.model_dump_json()
    assert name in text.lower()
