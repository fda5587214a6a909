"""YAML that means what it says: the 1.2 core rules, no key twice, errors that name the line."""

import re
from pathlib import Path
from typing import Any

import yaml

from schemas.errors import ConfigError

MAX_BYTES = 1 << 20


class _Loader(yaml.SafeLoader):
    """PyYAML reads YAML 1.1: there `NO` (Norway) is false, `0742` is 482 and `12:30` is 750."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012


for _tag, _pattern, _first in (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("null", r"~|null|Null|NULL|", "~nN\0"),
    ("int", r"[-+]?(0|[1-9][0-9]*)", "-+0123456789"),
    (
        "float",
        r"[-+]?(\.[0-9]+|[0-9]+\.[0-9]*)([eE][-+]?[0-9]+)?|[-+]?[0-9]+[eE][-+]?[0-9]+",
        "-+.0123456789",
    ),
):
    _Loader.add_implicit_resolver(
        f"tag:yaml.org,2002:{_tag}",
        re.compile(rf"^(?:{_pattern})$"),
        ["" if c == "\0" else c for c in _first],
    )


def _mapping_without_repeats(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    loader.flatten_mapping(node)
    pairs: dict[Any, Any] = {}
    for key_node, value_node in node.value:
        key = loader.construct_object(key_node, deep=True)
        if isinstance(key, dict | list):
            raise yaml.MarkedYAMLError(problem="a key is text or a number", problem_mark=key_node.start_mark)
        if key in pairs:
            raise yaml.MarkedYAMLError(problem=f"{key!r} is given twice", problem_mark=key_node.start_mark)
        pairs[key] = loader.construct_object(value_node, deep=True)
    return pairs


_Loader.add_constructor("tag:yaml.org,2002:map", _mapping_without_repeats)


def load_plain_yaml(path: Path) -> dict[Any, Any]:
    """Read a YAML file that holds one mapping.

    Raises:
        ConfigError: There is no such file, it is not YAML, or not a mapping.
    """
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except OSError as unreadable:
        raise ConfigError(f"{path}: cannot be read: {unreadable.strerror or unreadable}") from unreadable
    if len(raw) > MAX_BYTES:
        raise ConfigError(
            f"{path}: is larger than {MAX_BYTES >> 20} MiB; is it the data instead of the mapping?"
        )
    return parse_plain_yaml(raw, str(path))


def parse_plain_yaml(raw: bytes | str, source: str) -> dict[Any, Any]:
    """The mapping in a YAML text.

    Raises:
        ConfigError: It is not YAML, or not a mapping.
    """
    try:
        document = yaml.load(raw, _Loader)  # noqa: S506 - a subclass of SafeLoader
    except yaml.MarkedYAMLError as wrong:
        mark = wrong.problem_mark or wrong.context_mark
        line = f" line {mark.line + 1}:" if mark else ""
        hint = " (a name with ? : # , { or [ in it needs quotes)" if "flow" in (wrong.context or "") else ""
        raise ConfigError(f"{source}:{line} {wrong.problem or wrong.context}{hint}") from None
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as wrong:
        raise ConfigError(f"{source}: is not YAML: {str(wrong).splitlines()[0]}") from None
    if not isinstance(document, dict):
        raise ConfigError(f"{source}: holds no 'name: value' lines")
    return document
