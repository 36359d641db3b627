"""How a page is made from its template, the report among them; no secret of the settings is on any."""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar
from typing import Any
from urllib.parse import quote, urlencode

from jinja2 import Environment, PackageLoader, StrictUndefined

from backupkit.cli import render
from backupkit.config.deployment import in_full
from backupkit.config.secrets import Secret, scrubbed
from backupkit.config.settings import Settings
from backupkit.fs.space import format_bytes
from backupkit.model.durations import ago, span
from backupkit.model.names import printable_lines, printable_text
from backupkit.model.version import VERSION
from backupkit.web import charts

_secrets: ContextVar[tuple[Secret, ...]] = ContextVar("secrets", default=())
"""What is on no page that is being made; a macro sees the values of its page in no other way."""


def _without_secrets(value: Any) -> Any:
    """A value as it comes onto a page, before its letters are spelled as HTML has them: a secret is still one there."""
    is_text = isinstance(value, str) and not hasattr(value, "__html__")
    return scrubbed(value, _secrets.get()) if is_text else value


def _on_one_line(value: Any) -> Any:
    """The same in plain text, where no value is to be a line of its own."""
    return printable_text(_without_secrets(value)) if isinstance(value, str) else value


_templates = Environment(
    loader=PackageLoader("backupkit.web"),
    autoescape=True,
    undefined=StrictUndefined,
    finalize=_without_secrets,
    trim_blocks=True,
    lstrip_blocks=True,
)
_templates.globals.update(version=VERSION, charts=charts, render=render)
_templates.filters.update(
    bytes=format_bytes,
    count=lambda number: f"{number:,}",
    printable=lambda text: printable_text(str(text)),
    plainly=lambda text: printable_text(in_full(text)),
    in_lines=lambda text: printable_lines(in_full(text)),
    ago=ago,
    span=span,
    path=lambda text: quote(text, safe="/"),
    query=lambda values: urlencode(values, errors="replace"),
    seconds=lambda seconds: "" if seconds is None else f"{seconds:.1f} s",
)
_texts = _templates.overlay(autoescape=False, finalize=_on_one_line)


def made(template: str, settings: Settings, values: Mapping[str, Any]) -> str:
    """The page of that template with these values; the settings and `local`, a moment in their zone, are there too."""
    return _rendered(_templates, template, settings, values)


def made_text(template: str, settings: Settings, values: Mapping[str, Any]) -> str:
    """The same as plain text."""
    return _rendered(_texts, template, settings, values)


def _rendered(templates: Environment, template: str, settings: Settings, values: Mapping[str, Any]) -> str:
    def local(at: Any, form: str = "%Y-%m-%d %H:%M") -> str:
        return f"{settings.local(at):{form}}" if at else "-"

    before = _secrets.set(tuple(settings.secrets))
    try:
        return templates.get_template(template).render(settings=settings, local=local, **values)
    finally:
        _secrets.reset(before)
