"""The files of a report: Markdown that GitHub renders, one HTML page, pictures."""

from __future__ import annotations

import html
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader
from markupsafe import Markup
from matplotlib.figure import Figure

from cmcgns.common.files import write_text
from cmcgns.common.page import page_template
from cmcgns.common.safe_text import markdown_text
from cmcgns.reporting.style import save_pictures

_PACKAGE = "cmcgns.reporting.evaluation"
_NAME = re.compile(r"[\w./@+ -]+", re.ASCII)


def write_pages(
    folder: Path, name: str, content: Mapping[str, Any], figures: Mapping[str, Figure], kinds: Sequence[str]
) -> Path:
    """Write `NAME.md`, `NAME.html` and `pictures/`.

    Args:
        folder: to write into.
        name: of the templates and the files.
        content: what the templates take; `images` in them are the pictures by name.
        figures: the pictures.
        kinds: as of :func:`cmcgns.reporting.style.save_pictures`.

    Returns:
        Path of `NAME.html`, one file that needs nothing else.
    """
    images = save_pictures(folder, figures, kinds)
    markdown = _markdown().get_template(f"{name}.md.j2").render(images=images, **content)
    write_text(folder / f"{name}.md", re.sub(r"\n{3,}", "\n\n", markdown).strip() + "\n")
    page = page_template(_PACKAGE, f"{name}.html.j2", "report.css", trim=True)
    write_text(folder / f"{name}.html", page.render(images=images, **content))
    return folder / f"{name}.html"


def _markdown() -> Environment:
    """Templates of Markdown: whatever is not :class:`Markup` is escaped."""
    made = Environment(
        autoescape=True, loader=PackageLoader(_PACKAGE, ""), trim_blocks=True, lstrip_blocks=True,
        finalize=lambda value: value if isinstance(value, Markup) else _escape(value),
    )  # fmt: skip
    # What becomes Markup was escaped in the same line.
    made.filters["code"] = lambda name: Markup(f"`{name}`") if _NAME.fullmatch(name) else _escape(name)  # nosec B704
    # Names stay in code spans.
    made.filters["sentence"] = lambda text: Markup(_escape(text).replace("\\`", "`"))  # nosec B704
    made.filters["html"] = lambda text: Markup(html.escape(_line(text)))  # nosec B704
    return made


def _escape(text: object) -> Markup:
    return Markup(markdown_text(text))  # nosec B704


def _line(text: object) -> str:
    return " ".join(str(text).split())
