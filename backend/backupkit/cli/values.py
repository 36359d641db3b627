"""Typed words become values without pydantic: Typer loads it to convert them, and that takes longer than most commands.

What Typer does is replaced where there is nothing to convert. If Typer changes inside, it converts everything again.
"""

from __future__ import annotations

from typing import Any


class _Coercion:
    """Takes the place of Typer's own object in one parameter, and puts that back when there is a value to convert."""

    def __init__(self, annotation: object) -> None:
        self._annotation = annotation

    def coerce(self, value: Any, param: Any, ctx: Any) -> Any:
        """Return the value of the parameter, None or a tuple without elements if it was not given."""
        if value is None:
            return () if param.multiple or param.nargs == -1 else None
        if self._annotation is str and isinstance(value, str):
            return value
        if self._annotation == list[str] and isinstance(value, list | tuple):
            return list(value)
        if value is param.default and type(value) is self._annotation:
            return value
        param._runtime_param = None
        return param.get_runtime_param().coerce(value, param=param, ctx=ctx)


def convert_only_what_must_be(parameters: list[Any]) -> None:
    """Have Typer load pydantic only for a parameter that is given, and is not a text."""
    for one in parameters:
        if (described := getattr(one, "type_descriptor", None)) and getattr(one, "_runtime_param", "") is None:
            one._runtime_param = _Coercion(described.annotation)
