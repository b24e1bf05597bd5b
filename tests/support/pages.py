"""Pages of the documentation, their fenced blocks and inline code."""

import re
from dataclasses import dataclass
from pathlib import Path

from lorascope.cli.skill import SKILL

ROOT = Path(__file__).parents[2]
GENERATED = {"reference.md", "summary.md", "json.md"}
"""Made from the program, and held to it by tests of their own."""
PAGES = sorted(
    [
        *(ROOT / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "AGENTS.md", "llms.txt")),
        SKILL,
        *(ROOT / "docs").rglob("*.md"),
    ],
    key=lambda page: page.as_posix(),
)
WRITTEN = [page for page in PAGES if page.name not in GENERATED]

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    page: Path
    language: str
    text: str
    line: int

    def __str__(self) -> str:
        return f"{name(self.page)}:{self.line}"


def name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def blocks(language: str) -> list[Block]:
    """Every block of a language on the written pages, in the order of pages and lines."""
    found = []
    for page in WRITTEN:
        text = page.read_text(encoding="utf-8")
        for match in _FENCE.finditer(text):
            line = text.count("\n", 0, match.start()) + 1
            found.append(Block(page=page, language=match[1], text=match[2], line=line))
    return [block for block in found if block.language == language]


def prose(page: Path) -> str:
    """The page without its fenced blocks."""
    return _FENCE.sub("", page.read_text(encoding="utf-8"))


def inline_code(page: Path) -> list[str]:
    return re.findall(r"`([^`\n]+)`", prose(page))


def anchors(page: Path) -> set[str]:
    """Names of the headings, as GitHub makes them."""
    heads = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}
