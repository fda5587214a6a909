"""The declarations as a document."""

from collections.abc import Sequence
from itertools import groupby

from features.attributes import AttributeFeature
from features.definitions import Feature, declaration_hash
from features.entities import EntityFeature


def window(feature: Feature | EntityFeature) -> str:
    """Window in words; empty for features without one."""
    before = f", ending {feature.ends} before" if feature.ends else ""
    return f"{feature.window}{before}" if feature.window else ""


def markdown(features: Sequence[Feature]) -> str:
    """`docs/features.md`."""
    lines = [
        "# Features",
        "",
        "Generated from the declarations in `features/` by `tidegate features list --markdown`.",
        f"{len(features)} features, declaration `{declaration_hash(features)}`.",
        "",
        "A window of 30d is `[t - 30 days, t)` in event time, and the scored event is not in it. Amounts",
        "are in major units and take only events in the scored event's currency. Unknown is null, never 0.",
    ]
    for category, members in groupby(features, key=lambda f: f.category):
        lines += ["", f"## {category.replace('_', ' ').capitalize()}", ""]
        lines += ["| feature | window | unit | meaning |", "| --- | --- | --- | --- |"]
        lines += [f"| `{f.name}` | {window(f)} | {f.unit} | {f.meaning} |" for f in members]
    return "\n".join(lines) + "\n"


def lifetime_markdown(features: Sequence[Feature]) -> str:
    """The part of `docs/features.md` about a customer's whole life."""
    lines = [
        "",
        "# Features of a customer's whole life",
        "",
        "For churn, declared in `features/lifetime.py`: from lifetime totals and the newest transactions, as",
        "of a moment. Days are those of UTC. A day counts as active when it becomes the newest one, so a",
        "late event adds none. Amounts are in major units of the newest transaction's currency.",
        "",
        "| feature | unit | meaning |",
        "| --- | --- | --- |",
        *(f"| `{f.name}` | {f.unit} | {f.meaning} |" for f in features),
    ]
    return "\n".join(lines) + "\n"


def entities_markdown(features: Sequence[EntityFeature]) -> str:
    """The part of `docs/features.md` about entities."""
    lines = [
        "",
        "# Features of merchants, devices and counterparties",
        "",
        "Over all customers' events, declared in `features/entity_features.py`; `TIDEGATE_ENTITIES` says",
        "which entities are on. `hour` rounds down: a window of 30d with a delay of 7d is",
        "`[hour(t - 7 days) - 30 days, hour(t - 7 days))` in event time. A fraud counts at the hour of its",
        "transaction, for events more than a whole hour after the hour in which it became known. Where an",
        "event has no such entity its features are null.",
    ]
    for entity, members in groupby(features, key=lambda f: f.entity):
        lines += ["", f"## {entity.capitalize()}", ""]
        lines += ["| feature | window | delay | unit | meaning |", "| --- | --- | --- | --- | --- |"]
        lines += [f"| `{f.name}` | {f.window} | {f.delay} | {f.unit} | {f.meaning} |" for f in members]
    return "\n".join(lines) + "\n"


def attributes_markdown(features: Sequence[AttributeFeature]) -> str:
    """The part of `docs/features.md` about what only a message says.

    Args:
        features: Those of balances.
    """
    lines = [
        "",
        "# Balances and attributes",
        "",
        "Of the scored transaction alone, declared in `features/attributes.py`; `TIDEGATE_ATTRIBUTES` says",
        "which are on. No history keeps them: without a transaction they are null. An attribute `NAME` of a",
        "message is the column `attribute_NAME`: a number, 0 or 1 for a flag, a code of 24 bits for a text.",
        "",
        "| feature | unit | meaning |",
        "| --- | --- | --- |",
        *(f"| `{f.name}` | {f.unit} | {f.meaning} |" for f in features),
    ]
    return "\n".join(lines) + "\n"
