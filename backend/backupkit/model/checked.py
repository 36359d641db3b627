"""Where and why a value was refused, in plain words. msgspec checks every value that comes from a file or a user."""

from __future__ import annotations

import re

# What msgspec says, and what we say instead
_WORDS = {
    "int": "a whole number",
    "float": "a number",
    "str": "text",
    "bool": "true or false",
    "null": "null",
    "array": "a list",
    "object": "an object",
    "datetime": "a time",
}
_LIMITS = {">=": "of at least", "<=": "of at most", ">": "greater than", "<": "less than"}
_PLACE = re.compile(r" - at `[^$`]*(?:` in `)?\$(?P<path>[^`]*)`\Z")
_FIELD = re.compile(r"Object (?P<problem>missing required|contains unknown) field `(?P<name>.*)`", re.DOTALL)
_TYPE = re.compile(r"Expected `(?P<wanted>[^`]+)`, got `(?P<given>[^`]+)`")
_LIMIT = re.compile(r"Expected `(?P<wanted>int|float)` (?P<sign>[<>]=?) (?P<limit>\S+)")
_LENGTH = re.compile(r"Expected `(?P<wanted>\w+)` of length (?P<sign>[<>]=? )?(?P<limit>\d+).*")
_OTHERS = (
    ("Invalid enum value", "is none of the values that are allowed"),
    ("Invalid RFC3339 encoded datetime", "is not a date and time as in ISO 8601"),
    ("Expected `datetime` with a timezone component", "is a time without its offset from UTC"),
    ("Expected `str` matching regex", "is not of the form that it must have"),
    ("Number out of range", "is out of range"),
    ("Integer", "is out of range"),
)


def explained(error: ValueError) -> tuple[str, str]:
    """Return where the refused value is, as in `databases.0.size`, and what is wrong; at the top, where is empty.

    The error is one of msgspec's, or the `UnicodeError` that it raises for text that is not Unicode.
    """
    if isinstance(error, UnicodeError):
        return "", "a text in it is not Unicode"
    text = str(error)
    place = _PLACE.search(text)
    where = _steps(place["path"]) if place else []
    what = text[: place.start()] if place else text
    if field := _FIELD.fullmatch(what):
        problem = "is missing" if field["problem"] == "missing required" else "is unknown"
        return ".".join((*where, field["name"])), problem
    return ".".join(where), _plain(what)


def _steps(path: str) -> list[str]:
    """Return the names and the numbers of a path such as `.databases[0].rows[...]`; it has no keys of mappings."""
    return [one for one in re.split(r"[.\[\]]+", path) if one]


def _plain(what: str) -> str:
    """Return what is wrong in plain words; the words of a check of ours remain as they are."""
    if found := _TYPE.fullmatch(what):
        given = "a decimal number" if found["given"] == "float" else _named(found["given"])
        return f"must be {_named(found['wanted'])}, not {given}"
    if found := _LIMIT.fullmatch(what):
        return f"must be {_named(found['wanted'])} {_LIMITS[found['sign']]} {found['limit'].removesuffix('.0')}"
    if found := _LENGTH.fullmatch(what):
        sign = _LIMITS[found["sign"].strip()].removeprefix("of ") + " " if found["sign"] else ""
        return f"must be {_named(found['wanted'])} of length {sign}{found['limit']}"
    return next((ours for theirs, ours in _OTHERS if what.startswith(theirs)), what)


def _named(types: str) -> str:
    return " or ".join(_WORDS.get(one, one) for one in types.split(" | "))
