"""The project's documents and their parts: sections, code blocks, tables, links."""

from __future__ import annotations

import re
from pathlib import Path

from small_app import BACKEND

ROOT = BACKEND.parent
DOCS, REFERENCE = ROOT / "docs", ROOT / "docs" / "reference"
GUIDE, README, CHANGELOG = ROOT / "BACKUP_GUIDE.md", ROOT / "README.md", ROOT / "CHANGELOG.md"
DOCUMENTS = [
    *(ROOT / name for name in ("README.md", "BACKUP_GUIDE.md", "CHANGELOG.md", "CONTRIBUTING.md", "BENCHMARKS.md")),
    *sorted(DOCS.rglob("*.md")),
]


def text(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def section(title: str, path: Path = GUIDE) -> str:
    """Return the text below that heading, its subsections included."""
    masked = re.sub(r"^( *)```.*?^\1```", lambda block: block[0].replace("\n#", "\n\0"), text(path), flags=re.M | re.S)
    found = re.search(rf"^(#+) {re.escape(title)}$\n(.*?)(?=^#+ |\Z)", masked, re.M | re.S)
    assert found, f"{path.name} has no section {title!r}"
    whole = re.search(rf"^{found[1]} {re.escape(title)}$\n(.*?)(?=^#{{1,{len(found[1])}}} |\Z)", masked, re.M | re.S)
    assert whole
    return whole[1].replace("\n\0", "\n#")


def outside_blocks(path: Path) -> str:
    return re.sub(r"^( *)```.*?^\1```", "", text(path), flags=re.M | re.S)


def blocks(content: str, language: str = "sh") -> list[str]:
    """Return the code blocks of that language at the left margin."""
    return re.findall(rf"^```{language}\n(.*?)^```", content, re.M | re.S)


def rows(content: str) -> list[list[str]]:
    """Return the cells of each row of every table, without the header rows."""
    tables = re.findall(r"^\|.*\n\|[-|]+\n((?:\|.*\n?)*)", content, re.M)
    return [[cell.strip() for cell in line.strip("| ").split(" |")] for table in tables for line in table.splitlines()]


def in_backticks(content: str) -> set[str]:
    return set(re.findall(r"`([^`\n]+)`", content))


def anchors(path: Path) -> set[str]:
    """Return the anchors of the headings: lower case, hyphens for spaces, no other marks."""
    titles = re.findall(r"^#+ (.+)$", outside_blocks(path), re.M)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}
