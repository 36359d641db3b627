"""A page as a tree of elements. Text is text until the tree is written, so nothing can be forgotten to be escaped."""

from __future__ import annotations

from collections.abc import Iterable
from xml.etree.ElementTree import Element, tostring

from backupkit.config.secrets import Secret, scrubbed
from backupkit.model.names import printable

Child = Element | str | None
Value = str | float | None


def element(tag: str, *children: Child, **attributes: Value) -> Element:
    """An element with these children; what is None is left out. `class_` is class, `aria_label` is aria-label."""
    values = {_spelled(name): printable(f"{value}") for name, value in attributes.items() if value is not None}
    made = Element(tag, values)
    for child in children:
        _append(made, child)
    return made


def _spelled(name: str) -> str:
    return name.rstrip("_").replace("_", "-")


def _append(parent: Element, child: Child) -> None:
    if isinstance(child, Element):
        parent.append(child)
    elif child and len(parent):
        parent[-1].tail = (parent[-1].tail or "") + printable(child)
    elif child:
        parent.text = (parent.text or "") + printable(child)


def scrub(tree: Element, secrets: Iterable[Secret]) -> None:
    """None of these secrets is left in the tree."""
    secrets = tuple(secrets)
    for one in tree.iter():
        one.text, one.tail = (text and scrubbed(text, secrets) for text in (one.text, one.tail))
        one.attrib.update({name: scrubbed(value, secrets) for name, value in one.attrib.items()})


def written(tree: Element) -> str:
    """The whole document."""
    return f"<!doctype html>\n{tostring(tree, encoding='unicode', method='html')}\n"
