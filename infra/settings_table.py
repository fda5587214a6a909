"""Settings as a table, from their own declarations."""

from collections.abc import Iterable
from dataclasses import dataclass

from pydantic_settings import BaseSettings


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting."""

    variable: str
    default: str
    meaning: str
    used_by: str


def settings_of(classes: Iterable[tuple[str, type[BaseSettings]]]) -> list[Setting]:
    """All settings, each once, with the programs that read it."""
    found: dict[str, Setting] = {}
    for program, cls in classes:
        for name, field in cls.model_fields.items():
            variable = f"TIDEGATE_{name.upper()}"
            used_by = f"{found[variable].used_by}, {program}" if variable in found else program
            meaning = found[variable].meaning if variable in found else field.description or ""
            default = field.get_default(call_default_factory=True)
            found[variable] = Setting(variable, "" if default is None else str(default), meaning, used_by)
    return list(found.values())


def markdown(settings: Iterable[Setting]) -> str:
    """`docs/settings.md`."""
    lines = [
        "# Settings",
        "",
        "Generated from the settings classes by `tidegate settings --markdown`. All come from the",
        "environment; the most used are options of `tidegate worker` and `tidegate api` too. An option wins.",
        "",
        "| variable | default | read by | meaning |",
        "| --- | --- | --- | --- |",
    ]
    lines += [f"| `{s.variable}` | `{s.default}` | {s.used_by} | {s.meaning} |" for s in settings]
    return "\n".join(lines) + "\n"
