"""Pages in the house style with tables of results."""

from __future__ import annotations

from importlib import resources
from typing import Any

from jinja2 import DictLoader, Environment
from markupsafe import Markup

_HERE = "cmcgns.evaluation.report"


def render_page(name: str, **content: Any) -> str:
    """Fill a template of this package; everything is escaped.

    Args:
        name: `report.html.j2` or `comparison.html.j2`.
        content: what the template names.
    """
    texts = {"parts": _text(_HERE, "parts.html.j2"), "page": _text(_HERE, name)}
    styles = {"css": Markup(_text("cmcgns.inspect", "page.css")), "more": Markup(_text(_HERE, "report.css"))}
    page = Environment(autoescape=True, loader=DictLoader(texts), trim_blocks=True, lstrip_blocks=True)
    return page.get_template("page").render(**styles, **content)


def _text(package: str, name: str) -> str:
    return resources.files(package).joinpath(name).read_text("utf-8")
