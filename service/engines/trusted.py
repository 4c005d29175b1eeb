"""Opens the bundle that the settings name, and requires a signature if they do (`verify_key`)."""

from __future__ import annotations

from pathlib import Path

from models import signing
from models.errors import KeyFileError
from models.store import Bundle, open_bundle
from service.errors import ConfigError
from service.settings import Settings, variable_name


def open_trusted(settings: Settings) -> Bundle:
    """Raises BundleError, and ConfigError for an invalid key."""
    if not settings.verify_key:
        return open_bundle(settings.model)
    try:
        trust = signing.checker(Path(settings.verify_key))
    except KeyFileError as error:
        raise ConfigError(f"{variable_name('verify_key')}: {error}") from error
    except ImportError as error:
        raise ConfigError(
            f"{variable_name('verify_key')} needs the package {error.name}: pip install 'repvgg[signing]'"
        ) from error
    return open_bundle(settings.model, trust=trust)
