"""Settings from options and the environment, wrong ones said in words."""

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import ValidationError
from pydantic_settings import BaseSettings, SettingsError

from schemas.errors import ConfigError

Settings = TypeVar("Settings", bound=BaseSettings)


def settings_of(kind: type[Settings], given: Mapping[str, Any] | None = None) -> Settings:
    """Settings of a program.

    Args:
        kind: Of which program.
        given: Options by name; those that are `None` come from the environment.

    Raises:
        ConfigError: A value is none of those allowed. It is not repeated: it may be a secret.
    """
    try:
        return kind(**{name: value for name, value in (given or {}).items() if value is not None})
    except ValidationError as invalid:
        problems = [f"TIDEGATE_{'.'.join(map(str, e['loc'])).upper()}: {e['msg']}" for e in invalid.errors()]
        raise ConfigError("; ".join(problems)) from None
    except SettingsError as unreadable:
        # "error parsing value for field ..."
        field = str(unreadable).partition('"')[2].partition('"')[0]
        raise ConfigError(f"TIDEGATE_{field.upper()}: this is not JSON") from None
