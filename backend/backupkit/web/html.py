"""Rendering of the page templates, the report included. Secrets of the settings are removed from every value."""

from __future__ import annotations

import os
from contextvars import ContextVar
from typing import Any
from urllib.parse import quote, unquote_to_bytes, urlencode

from jinja2 import Environment, PackageLoader, StrictUndefined

from backupkit.cli import render as in_words
from backupkit.config.deployment import in_full
from backupkit.config.secrets import Secret, scrubbed
from backupkit.config.settings import Settings
from backupkit.fs.space import format_bytes
from backupkit.model.durations import ago, interval, span
from backupkit.model.names import printable_lines, printable_text
from backupkit.model.version import VERSION
from backupkit.web import charts

_secrets: ContextVar[tuple[Secret, ...]] = ContextVar("secrets", default=())
"""The secrets to remove from the page being rendered; a context variable, because `finalize` gets only one value."""


def _without_secrets(value: Any) -> Any:
    """Return the value without secrets; before HTML escaping, because an escaped secret would not be recognized."""
    is_text = isinstance(value, str) and not hasattr(value, "__html__")
    return scrubbed(value, _secrets.get()) if is_text else value


def _on_one_line(value: Any) -> Any:
    """Return the value for a plain-text template: without secrets, and without line breaks."""
    return printable_text(_without_secrets(value)) if isinstance(value, str) else value


def exact(text: str) -> str:
    """Return a path, or a table's name, as a link or a hidden field carries it: ASCII without line breaks.

    A browser changes both line breaks and bytes that are no text; `of_exact` returns the very same ones.
    """
    return quote(os.fsencode(text))


def of_exact(text: str) -> str:
    """Return the text that `exact` was given."""
    return os.fsdecode(unquote_to_bytes(os.fsencode(text)))


_templates = Environment(
    loader=PackageLoader("backupkit.web"),
    autoescape=True,
    undefined=StrictUndefined,
    finalize=_without_secrets,
    trim_blocks=True,
    lstrip_blocks=True,
)
_templates.globals.update(version=VERSION, charts=charts, render=in_words)
_templates.filters.update(
    bytes=format_bytes,
    count=lambda number: f"{number:,}",
    printable=lambda text: printable_text(str(text)),
    plainly=lambda text: printable_text(in_full(text)),
    in_lines=lambda text: printable_lines(in_full(text)),
    ago=ago,
    span=span,
    interval=interval,
    path=lambda text: quote(text, safe="/"),
    exact=exact,
    query=lambda values: urlencode(values, errors="replace"),
    seconds=lambda seconds: "" if seconds is None else f"{seconds:.1f} s",
)
_templates.globals.update(vars(_templates.get_template("macros.html").module))  # for every template
_texts = _templates.overlay(autoescape=False, finalize=_on_one_line)


def render(template: str, settings: Settings, frame: str = "", **values: Any) -> str:
    """Return the template with these values, `settings`, and `local` (formats a time in their zone).

    The values are escaped for HTML; in a template of plain text, each is put on one line. `frame` is the template
    around it, to which it tells its `title` and `place`.
    """

    def local(at: Any, form: str = "%Y-%m-%d %H:%M") -> str:
        return f"{settings.local(at):{form}}" if at else "-"

    before = _secrets.set(tuple(settings.secrets))
    try:
        found = (_templates if template.endswith(".html") else _texts).get_template(template)
        every = values | {"settings": settings, "local": local}
        if not frame:
            return found.render(every)
        inner = found.make_module(every)
        every |= {"content": inner, "title": inner.title, "place": inner.place}  # type: ignore[attr-defined]
        return _templates.get_template(frame).render(every)
    finally:
        _secrets.reset(before)
