"""A refused value is named by its place, and what is wrong with it is said in plain words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Annotated, Literal

import msgspec
import pytest

from backupkit.model.checked import explained


@dataclass(frozen=True)
class Inner:
    size: Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
    pair: tuple[int, int] = (0, 0)


class Strict(msgspec.Struct, forbid_unknown_fields=True):
    path: str


@dataclass(frozen=True)
class Form:
    name: Annotated[str, msgspec.Meta(pattern=r"\A[a-z]+\Z", min_length=1)] = "x"
    share: Annotated[float, msgspec.Meta(gt=0, le=1.5)] = 1
    kind: Literal["one", "two"] = "one"
    at: datetime | None = None
    aware: Annotated[datetime, msgspec.Meta(tz=True)] | None = None
    is_on: bool = False
    few: Annotated[tuple[str, ...], msgspec.Meta(max_length=1)] = ()
    inner: Inner | None = None
    several: tuple[Inner, ...] = ()
    rows: Mapping[str, Inner] = field(default_factory=dict)
    strict: Strict | None = None
    even: int = 0

    def __post_init__(self) -> None:
        if self.even % 2:
            raise ValueError("even is odd")


@pytest.mark.parametrize(
    ("values", "where", "what"),
    [
        ({"is_on": "x"}, "is_on", "must be true or false, not text"),
        ({"is_on": 1}, "is_on", "must be true or false, not a whole number"),
        ({"inner": {"size": "5"}}, "inner.size", "must be a whole number, not text"),
        ({"inner": {"size": 5.0}}, "inner.size", "must be a whole number, not a decimal number"),
        ({"inner": {"size": True}}, "inner.size", "must be a whole number, not true or false"),
        ({"inner": {"size": None}}, "inner.size", "must be a whole number, not null"),
        ({"inner": {"size": -1}}, "inner.size", "must be a whole number of at least 0"),
        ({"inner": {"size": 2**63}}, "inner.size", "must be a whole number of at most 9223372036854775807"),
        ({"inner": {"size": 2**70}}, "inner.size", "must be a whole number of at most 9223372036854775807"),
        ({"inner": []}, "inner", "must be an object or null, not a list"),
        ({"inner": {}}, "inner.size", "is missing"),
        ({"inner": {"size": 1, "pair": [1]}}, "inner.pair", "must be a list of length 2"),
        ({"several": [{"size": 1}, {"size": -1}]}, "several.1.size", "must be a whole number of at least 0"),
        ({"several": {}}, "several", "must be a list, not an object"),
        ({"rows": {"a.b": {"size": -1}}}, "rows.size", "must be a whole number of at least 0"),
        ({"rows": {1: {"size": 1}}}, "rows", "must be text, not a whole number"),
        ({"share": 0}, "share", "must be a number greater than 0"),
        ({"share": 2}, "share", "must be a number of at most 1.5"),
        ({"share": float("nan")}, "share", "must be a number greater than 0"),
        ({"name": "abc\n"}, "name", "is not of the form that it must have"),
        ({"name": ""}, "name", "must be text of length at least 1"),
        ({"few": ["a", "b"]}, "few", "must be a list of length at most 1"),
        ({"kind": "three"}, "kind", "is none of the values that are allowed"),
        ({"kind": "three` - at `$.name`"}, "kind", "is none of the values that are allowed"),
        ({"kind": "\udcff"}, "", "a text in it is not Unicode"),
        ({"at": "yesterday"}, "at", "is not a date and time as in ISO 8601"),
        ({"aware": "2026-01-01T10:00:00"}, "aware", "is a time without its offset from UTC"),
        ({"strict": {"path": "x", "pth": 1}}, "strict.pth", "is unknown"),
        ({"strict": {}}, "strict.path", "is missing"),
        ({"even": 1}, "", "even is odd"),
        ([], "", "must be an object, not a list"),
        (None, "", "must be an object, not null"),
    ],
)
def test_a_refused_value_is_explained(values: object, where: str, what: str) -> None:
    with pytest.raises(ValueError) as raised:
        msgspec.convert(values, Form)
    assert explained(raised.value) == (where, what)
