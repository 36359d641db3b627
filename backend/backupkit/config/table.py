"""Tables of settings: immutable objects whose values are converted and checked while they are made.

A class lists its settings in the order in which they are checked, each as `name: type = setting(…)`. msgspec converts
a value to the type, from text too, and holds it to its limits. A setting may name functions for the rest: `prepare`
gets the value before that, and `check` after it. Each gets the values of the settings above it as well, returns the
value, and raises `ValueError` for one that is not allowed.
"""

from __future__ import annotations

import json
import typing
from collections.abc import Callable, Mapping
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, Self

import msgspec
from msgspec import Struct, field
from msgspec.structs import replace

from backupkit.config.secrets import Secret
from backupkit.model.checked import explained

Earlier = Mapping[str, Any]
Step = Callable[[Any, Earlier], object]
REQUIRED: Any = object()
MANY = 1_000_000  # the most that a setting may be if nothing else limits it
_WORDS = {**dict.fromkeys(("yes", "on", "y", "t"), True), **dict.fromkeys(("no", "off", "n", "f"), False)}
_known: dict[type[CheckedTable], Mapping[str, Field]] = {}


class Invalid(ValueError):
    """A setting, its value as it was given, and why that is not allowed; `is_unknown`: there is no such setting."""

    def __init__(self, name: str, reason: str, value: object, is_unknown: bool = False) -> None:
        super().__init__(reason)
        self.name, self.reason, self.value, self.is_unknown = name, reason, value, is_unknown


class Field(Struct, frozen=True):
    """How a setting is declared: its limits, and the functions that prepare and check a value."""

    default: Any
    description: str
    limits: Mapping[str, float] = field(default_factory=dict)
    prepare: tuple[Step, ...] = ()
    check: tuple[Step, ...] = ()
    type: Any = None  # what `name: type` says
    is_converted: bool = False  # `prepare` returns a value of the right type

    @property
    def is_required(self) -> bool:
        return self.default is REQUIRED

    @property
    def may_be_none(self) -> bool:
        return NoneType in typing.get_args(self.type)

    @property
    def form(self) -> Any:
        """The type without None, with its limits, as msgspec takes it."""
        kinds = [one for one in typing.get_args(self.type) if one is not NoneType] if self.may_be_none else [self.type]
        return Annotated[kinds[0], msgspec.Meta(**self.limits)] if self.limits else kinds[0]  # type: ignore[call-overload]


def setting(
    description: str,
    default: Any = REQUIRED,
    *,
    prepare: Step | tuple[Step, ...] = (),
    check: Step | tuple[Step, ...] = (),
    is_converted: bool = False,
    **limits: float,
) -> Any:
    """Declare a setting: what it means, its default, its limits (`ge`, `gt`, `le`, `min_length`), and its functions.

    `is_converted` means that `prepare` returns a value of the right type.
    """
    return Field(default, description, limits, _steps(prepare), _steps(check), None, is_converted)


def count(description: str, default: int, least: int = 0) -> Any:
    """Declare a setting that is a number of backups."""
    return setting(description, default, ge=least, le=MANY)


def parsed(value: object) -> object:
    """Return the value of a setting that is a table; text, as the environment has it, is read as JSON."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value) if value.strip() else {}
    except (ValueError, RecursionError):
        raise ValueError("is not JSON") from None


def _steps(given: Step | tuple[Step, ...]) -> tuple[Step, ...]:
    return given if isinstance(given, tuple) else (given,)


class CheckedTable:
    """A table of settings. Values are given by name; raise `Invalid` for the first one that is not allowed."""

    def __init__(self, /, **given: object) -> None:
        known = fields(type(self))
        for name in given:
            if name not in known:
                raise Invalid(name, "is not a setting", given[name], is_unknown=True)
        values: dict[str, Any] = {}
        for name, declared in known.items():
            values[name] = _checked(name, declared, given.get(name, declared.default), values)
        self.__dict__.update(values, _given=frozenset(given))

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"{name} cannot be set: settings are immutable")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, CheckedTable) and type(self) is type(other) and self.values() == other.values()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in self.values().items())})"

    @property
    def given(self) -> frozenset[str]:
        """The names of the settings that are not at their default, or were given with its value."""
        return typing.cast(frozenset[str], self.__dict__["_given"])

    def values(self) -> dict[str, Any]:
        """Return each setting's value by its name, in the order in which the class lists them."""
        return {name: self.__dict__[name] for name in fields(type(self))}

    def replaced(self, /, **changes: object) -> Self:
        """Return a copy with other values for some settings, which are not checked again."""
        copy = object.__new__(type(self))
        kept = {name: value for name, value in vars(self).items() if name.startswith("_")}  # nothing that is cached
        copy.__dict__.update(kept, **{**self.values(), **changes}, _given=self.given | changes.keys())
        return copy


def fields(kind: type[CheckedTable]) -> Mapping[str, Field]:
    """Return the settings of a table by name, those of its base class first."""
    if kind not in _known:
        _known[kind] = _declared(kind)
    return _known[kind]


def _declared(kind: type[CheckedTable]) -> Mapping[str, Field]:
    types = typing.get_type_hints(kind)
    declared = {
        name: value for base in reversed(kind.__mro__) for name, value in vars(base).items() if isinstance(value, Field)
    }
    return {name: replace(one, type=types[name]) for name, one in declared.items()}


def _checked(name: str, declared: Field, value: object, earlier: Earlier) -> object:
    if value is REQUIRED:
        raise Invalid(name, "is missing", None)
    given = value
    try:
        for step in declared.prepare:
            value = step(value, earlier)
        value = _converted(declared, value)
        for step in declared.check:
            value = step(value, earlier)
    except ValueError as error:  # msgspec's errors are ValueErrors too
        reason = explained(error)[1] if isinstance(error, msgspec.ValidationError) else str(error)
        raise Invalid(name, reason, given) from error
    return value


def _converted(declared: Field, value: object) -> object:
    if declared.is_converted or (value is None and declared.may_be_none):
        return value
    form = declared.form
    if isinstance(value, str) and form is not str:
        value = value.strip()
        value = _WORDS.get(value.lower(), value) if form is bool else value
    return msgspec.convert(value, form, strict=False, dec_hook=_custom)


def _custom(kind: type, value: object) -> object:
    """Return the value as a path or a secret, which msgspec does not know; raise `ValueError` if it is none."""
    if isinstance(value, kind):
        return value
    if not isinstance(value, str) or not issubclass(kind, Path | Secret):
        raise ValueError(f"must be {'a path' if kind is Path else 'text'}")
    return kind(value)
