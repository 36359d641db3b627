"""Which parts of the main path are tested on which engine, read from the tests' marks: documents cannot claim more."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

PATH = ("backup beside a writer", "restore", "kill, recover", "scheduler", "other user id", "read-only root")


@dataclass(frozen=True)
class Combination:
    """A row of the table: the host, the engine, the Compose that drives it, and whether it is rootless."""

    engine: str
    compose: str
    rootless: str = "no"
    host: str = "Debian 12"

    @property
    def row(self) -> tuple[str, ...]:
        return (self.host, self.engine, self.compose, self.rootless)


DOCKER_V1, DOCKER_V2 = Combination("Docker", "`docker-compose` 1"), Combination("Docker", "`docker compose` 2")
DOCKER_REMAPPED = Combination("Docker with `userns-remap`", "`docker compose` 2")
DOCKER_ROOTLESS = Combination("Docker", "`docker compose` 2", rootless="yes")
PODMAN = Combination("Podman", "`podman-compose` 1.0")
PODMAN_V2 = Combination("Podman", "`docker compose` 2")
PODMAN_V2_ROOTLESS = Combination("Podman", "`docker compose` 2", rootless="yes")
PODMAN_ROOTLESS = Combination("Podman", "`podman-compose` 1.0", rootless="yes")
DEBIAN_13 = Combination("none", "-", rootless="-", host="Debian 13")


def combinations_of(test: Callable[..., Any], module: ModuleType) -> Iterable[Combination]:
    """Return the combinations of a test: both Compose generations if it uses that fixture, else its module's."""
    if "generation" in inspect.signature(test).parameters:
        return (DOCKER_V1, DOCKER_V2)
    return getattr(module, "COMBINATIONS", (DOCKER_V2,))


def table(modules: Iterable[ModuleType]) -> list[str]:
    """Return the lines of the table, as the document has them."""
    shown: dict[Combination, set[str]] = {}
    for module in modules:
        for name, test in vars(module).items():
            for mark in getattr(test, "pytestmark", []) if name.startswith("test_") else []:
                if mark.name == "shows":
                    assert set(mark.args) <= set(PATH), mark.args
                    for one in mark.kwargs.get("on") or combinations_of(test, module):
                        shown.setdefault(one, set()).update(mark.args)
    head = ("host", "engine", "Compose", "rootless", *PATH)
    rows = [(*one.row, *("yes" if what in shown[one] else "-" for what in PATH)) for one in shown]
    return [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *sorted(rows))]
