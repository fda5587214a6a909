"""A bank's own features, declared in a YAML file: the one place that reads it, for all commands.

The file adds to the catalogue and changes nothing of it. What it declares is compiled into the same kernel:
worker, API, training and replays compute it with the same code, and models that were trained with it are
refused without it.
"""

import re
import string
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Final, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from features.attributes import attribute_features
from features.catalogue import FEATURES
from features.clock import UTC, Clock
from features.definitions import DAY_MS, EVENT, Feature, Op, Where, check, parse_duration_ms
from features.engine import Engine
from features.entities import ENTITIES, TILE_MS, EntityFeature, EntityOp
from features.entities import check as check_entities
from features.entity_features import ENTITY_FEATURES, entity_features
from infra.mapping import did_you_mean
from infra.plain_yaml import load_plain_yaml
from infra.time_zones import clock_of
from schemas.errors import ConfigError

_CONDITION: Final = re.compile(r"\s*([a-z_]+)\s*(==|!=|<=|>=|<|>)\s*(.+?)\s*")
_UNITS: Final = {
    Op.COUNT: "events",
    Op.DISTINCT: "values",
    Op.SHARE: "ratio",
    Op.RATIO: "ratio",
    Op.TIME_SINCE: "s",
    Op.SINCE_FIRST: "s",
    Op.IS_NEW: "flag",
    Op.DISTANCE: "km",
    Op.SPEED: "km/h",
    Op.ZSCORE: "std",
    Op.EVENT_VALUE: "code",
}
_ENTITY_UNITS: Final = {
    EntityOp.FRAUD_SHARE: "ratio",
    EntityOp.CUSTOMERS: "customers",
    EntityOp.SINCE_FRAUD: "s",
    EntityOp.FRAUD_RUN: "s",
    EntityOp.AMOUNT_RATIO: "ratio",
    EntityOp.AMOUNT_ZSCORE: "std",
}
_PHRASE_FIELDS: Final = frozenset({"value", "duration"})


def _spelled(value: Any) -> Any:
    return value.replace(" ", "_") if isinstance(value, str) else value


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, str | dict) else value


class Condition(BaseModel):
    """One condition on past events: `category == cash`, or the same as `field`, `op` and `value`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    field: str
    op: str
    value: str | int | float

    @model_validator(mode="before")
    @classmethod
    def _read(cls, written: Any) -> Any:
        if not isinstance(written, str):
            return written
        match = _CONDITION.fullmatch(written)
        if match is None:
            raise ValueError(f"{written!r} is no condition; write: field == value, or !=, <, >=")
        return {"field": match[1], "op": match[2], "value": _number(match[1], match[3])}

    def declared(self) -> Where:
        """As the engine has it."""
        return Where(self.field, self.op, self.value)


def _number(field: str, written: str) -> str | int | float:
    """The value of a condition: a number where the field is one, else text, with or without quotes."""
    try:
        if field in {"hour", "weekday"}:
            return int(written)
        if field == "amount":
            return float(written)
    except ValueError:
        return written
    quoted = len(written) > 1 and written[0] == written[-1] and written[0] in "'\""
    return written[1:-1] if quoted else written


class Declaration(BaseModel):
    """What a file says of one feature."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    op: Annotated[str, BeforeValidator(_spelled)]
    entity: str = "customer"
    field: str | None = None
    by: str | None = Field(default=None, description="Only events with the scored event's own value of it.")
    window: str | None = None
    ends: str | None = Field(default=None, description="How long before the event the window ends.")
    where: Annotated[tuple[Condition, ...], BeforeValidator(_as_list)] = ()
    of: tuple[str, ...] = Field(default=(), description="Of a ratio: numerator and denominator.")
    scale: float = 1.0
    category: str = "own"
    unit: str | None = None
    meaning: str | None = None
    phrase: str | None = Field(default=None, description="A reason's words, with {value} in them.")

    _of_entities: ClassVar[frozenset[str]] = frozenset(
        {"op", "entity", "window", "ends", "category", "unit", "meaning", "phrase"}
    )

    @model_validator(mode="after")
    def _can_be_said(self) -> Self:
        ops: type[Op] | type[EntityOp] = Op if self.entity == "customer" else EntityOp
        known = [op.value for op in ops]
        kinds = ["customer", *(entity.name for entity in ENTITIES)]
        if self.entity not in kinds:
            raise ValueError(f"entity {self.entity!r}: there are {', '.join(kinds)}")
        if self.op not in known:
            of = "" if self.entity == "customer" else f" of a {self.entity}"
            raise ValueError(
                f"op {self.op!r}{of}: there are {', '.join(known)}{did_you_mean(self.op, known)}"
            )
        if self.entity != "customer" and (extra := sorted(self.model_fields_set - self._of_entities)):
            raise ValueError(
                f"{', '.join(extra)}: not of a {self.entity}: what is kept of it is counts by the hour"
            )
        if self.phrase is not None and (problem := _phrase_problem(self.phrase)):
            raise ValueError(f"phrase: {problem}")
        return self

    def customer_feature(self, name: str) -> Feature:
        """The declaration as the engine has it."""
        op = Op(self.op)
        where = [condition.declared() for condition in self.where]
        if self.by is not None:
            where.append(Where(self.by, "==", EVENT))
        return Feature(
            name,
            self.category,
            op,
            self.unit or _UNITS.get(op, "currency"),
            self.meaning or name,
            field=self.field,
            window=self.window,
            ends=self.ends,
            where=tuple(where),
            of=self.of,
            scale=self.scale,
            phrase=self.phrase,
        )

    def entity_feature(self, name: str) -> EntityFeature:
        """The declaration as `features.entities` has it."""
        op = EntityOp(self.op)
        if self.window is None or self.ends is None:
            raise ConfigError(
                f"needs window and ends, like 30d and 7d: what a {self.entity} has is not known at once"
            )
        unit = self.unit or _ENTITY_UNITS.get(op, "events")
        return EntityFeature(
            name, self.entity, op, self.window, self.ends, unit, self.meaning or name, self.phrase
        )


def _phrase_problem(phrase: str) -> str | None:
    try:
        names = {name for _, name, _, _ in string.Formatter().parse(phrase) if name is not None}
        if names <= _PHRASE_FIELDS:
            phrase.format(value=1.0, duration="1 hour")
            return None
    except (ValueError, IndexError, KeyError) as wrong:
        return str(wrong)
    return "only {value} and {duration} can stand in it"


class Declared(BaseModel):
    """Features of a file."""

    model_config = ConfigDict(frozen=True)

    customer: tuple[Feature, ...] = ()
    entity: tuple[EntityFeature, ...] = ()
    clock: Clock = UTC

    @property
    def names(self) -> set[str]:
        """Names of both."""
        return {feature.name for feature in self.customer} | {feature.name for feature in self.entity}


def read_declarations(path: Path) -> Declared:
    """The features that a file declares.

    Raises:
        ConfigError: Names the file, the feature and what cannot work.
    """
    document = load_plain_yaml(path)
    zone, listed = document.pop("timezone", "UTC"), document.pop("features", {})
    if document or not isinstance(listed, dict) or not (listed or zone != "UTC"):
        raise ConfigError(
            f"{path}: write 'features:' and under it one block for each feature, by its name; beside it may "
            "stand 'timezone:' with a name such as Europe/Prague"
        )
    try:
        clock = clock_of(str(zone))
    except ConfigError as unknown:
        raise ConfigError(f"{path}: timezone: {unknown}") from None
    customer: list[Feature] = []
    entity: list[EntityFeature] = []
    for name, written in listed.items():
        try:
            declaration = _declaration(written)
            if str(name) in {f.name for fs in (customer, entity, ENTITY_FEATURES) for f in fs}:
                raise ConfigError("declared twice")
            if declaration.entity == "customer":
                feature = declaration.customer_feature(str(name))
                _check([*FEATURES, *customer], feature)
                customer.append(feature)
            else:
                of_entity = declaration.entity_feature(str(name))
                _check_entity(of_entity)
                entity.append(of_entity)
        except ConfigError as problem:
            reason = str(problem).removeprefix(f"feature {str(name)!r}: ")
            raise ConfigError(f"{path}: feature {str(name)!r}: {reason}") from None
    return Declared(customer=tuple(customer), entity=tuple(entity), clock=clock)


def _declaration(written: Any) -> Declaration:
    if not isinstance(written, dict):
        raise ConfigError("write op, window and so on under it")
    try:
        return Declaration.model_validate(written)
    except ValidationError as invalid:
        raise ConfigError("; ".join(_explain(invalid))) from None


def _explain(invalid: ValidationError) -> Iterator[str]:
    options = list(Declaration.model_fields)
    for error in invalid.errors(include_url=False, include_context=False):
        place = [str(part) for part in error["loc"]]
        message = error["msg"].removeprefix("Value error, ")
        if error["type"] == "extra_forbidden" and len(place) == 1:
            message = f"no such option{did_you_mean(place[0], options)} (options are {', '.join(options)})"
        yield ": ".join([".".join(place), message] if place else [message])


def _check(before: Sequence[Feature], feature: Feature) -> None:
    if any(f.name == feature.name for f in FEATURES):
        raise ConfigError("the catalogue has a feature of this name; choose another")
    if missing := [name for name in feature.of if name not in {f.name for f in before}]:
        near = did_you_mean(missing[0], [f.name for f in before])
        raise ConfigError(f"there is no feature {missing[0]!r} above it or in the catalogue{near}")
    check([*before, feature])


def _check_entity(feature: EntityFeature) -> None:
    check_entities([feature])
    kept = max(
        f.window_tiles + f.delay_tiles
        for f in ENTITY_FEATURES
        if f.entity == feature.entity and (feature.of_frauds or not f.of_frauds)
    )
    if feature.window_tiles + feature.delay_tiles > kept:
        # What is stored of an entity is cut to it, also by who has no such file.
        days, hours = divmod(kept * TILE_MS, DAY_MS)
        kind = "frauds" if feature.of_frauds else "transactions"
        raise ConfigError(
            f"window and ends reach back further than {kind} of a {feature.entity} are kept: {days}d"
            + (f" {hours // parse_duration_ms('1h')}h" if hours else "")
        )


def load_engine(features: Path | None, entities: str, attributes: str = "") -> Engine:
    """The engine of the catalogue, of a bank's own declarations, and of what is on besides.

    Args:
        features: A YAML file; `None`: only the catalogue.
        entities: As `features.entities.entity_features` takes them.
        attributes: As `features.attributes.attribute_features` takes them.

    Raises:
        ConfigError: A declaration cannot work, or is about an entity that is off.
    """
    on, said = entity_features(entities), attribute_features(attributes)
    if features is None:
        return Engine(entities=on, attributes=said)
    own = read_declarations(features)
    off = [feature for feature in own.entity if feature.entity not in {f.entity for f in on}]
    if off:
        raise ConfigError(
            f"{features}: feature {off[0].name!r}: is about a {off[0].entity}, which TIDEGATE_ENTITIES "
            "(--entities) does not turn on"
        )
    if twice := {feature.name for feature in said} & own.names:
        raise ConfigError(
            f"{features}: feature {min(twice)!r}: an attribute that TIDEGATE_ATTRIBUTES (--attributes) turns "
            "on has this name; choose another"
        )
    return Engine((*FEATURES, *own.customer), (*on, *own.entity), said, own.clock)
