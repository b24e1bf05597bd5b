"""Jinja's environment of the report's templates, and what Markdown needs."""

import re
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

from lorascope.text.language import current_language, tr
from lorascope.text.say import say
from lorascope.text.shown_rows import heading, in_brackets, marked_pieces

TEMPLATES = Path(__file__).parent / "templates"


def make_environment() -> Environment:
    """Make the environment with the filters and words that templates use."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=select_autoescape(enabled_extensions=("html.j2",)),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["md"] = escape_markdown
    environment.filters["fence"] = fence_of
    environment.filters["say"] = say
    environment.filters["heading"] = heading
    environment.filters["in_brackets"] = in_brackets
    environment.filters["marked_pieces"] = marked_pieces
    environment.globals["tr"] = tr
    return environment


def language_ending() -> str:
    """Return the infix that distinguishes the files of a language other than English."""
    return "" if current_language() == "en" else f".{current_language()}"


def escape_markdown(text: str) -> str:
    """Escape the characters that Markdown and HTML interpret, and join lines."""
    one_line = " ".join(text.split())
    escaped = re.sub(r"([\\`*_\[\]|#~])", r"\\\1", one_line)
    return escaped.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def fence_of(text: str) -> str:
    """Return a fence of backticks longer than any in ``text``."""
    return "`" * max(3, 1 + max((len(run) for run in re.findall("`+", text)), default=0))
