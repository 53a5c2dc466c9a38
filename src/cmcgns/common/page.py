"""Pages in the house style."""

import base64

from jinja2 import Environment, FunctionLoader, Template
from markupsafe import Markup

from cmcgns.common.packaged import packaged_text

_PAGE = "page.html.j2"


def data_url(kind: str, content: bytes) -> Markup:
    """A picture (png, jpeg) as the address of an image in a page."""
    return Markup(f"data:image/{kind};base64,") + Markup(base64.b64encode(content).decode())  # nosec B704 # letters


def page_template(package: str, name: str, style: str = "", trim: bool = False) -> Template:
    """A Jinja template from a file of a package, which may import others of its folder; everything is escaped.

    It may extend `page.html.j2`, with the head and foot of a page.

    Args:
        package: e.g. `cmcgns.reporting.run_page`.
        name: of the file; `{{ css }}` in it is the house style.
        style: of a file of the package with more of it.
        trim: whether a block leaves no empty line and no indentation behind.
    """
    css = packaged_text("cmcgns.common", "page.css") + (packaged_text(package, style) if style else "")
    loader = FunctionLoader(lambda file: packaged_text("cmcgns.common" if file == _PAGE else package, file))
    page = Environment(autoescape=True, loader=loader, trim_blocks=trim, lstrip_blocks=trim)
    return page.get_template(name, globals={"css": Markup(css)})  # nosec B704 # of the package
