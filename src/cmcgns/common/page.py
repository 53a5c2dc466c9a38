"""Pages in the house style."""

from importlib import resources
from typing import Any

from jinja2 import Environment
from markupsafe import Markup


def page_template(package: str, name: str) -> Any:
    """A Jinja template from a file of a package; `{{ css }}` in it is the house style.

    Args:
        package: e.g. `cmcgns.reporting.run_page`.
        name: of the file.
    """
    text = resources.files(package).joinpath(name).read_text("utf-8")
    css = resources.files("cmcgns.common").joinpath("page.css").read_text("utf-8")
    return Environment(autoescape=True).from_string(text, globals={"css": Markup(css)})
