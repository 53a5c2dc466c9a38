"""Pages in the house style."""

from importlib import resources

from jinja2 import Environment, FunctionLoader, Template
from markupsafe import Markup


def page_template(package: str, name: str, style: str = "", trim: bool = False) -> Template:
    """A Jinja template from a file of a package, which may import others of its folder; everything is escaped.

    Args:
        package: e.g. `cmcgns.reporting.run_page`.
        name: of the file; `{{ css }}` in it is the house style.
        style: of a file of the package with more of it.
        trim: whether a block leaves no empty line and no indentation behind.
    """
    here = resources.files(package)
    css = resources.files("cmcgns.common").joinpath("page.css").read_text("utf-8")
    css += here.joinpath(style).read_text("utf-8") if style else ""
    loader = FunctionLoader(lambda file: here.joinpath(file).read_text("utf-8"))
    page = Environment(autoescape=True, loader=loader, trim_blocks=trim, lstrip_blocks=trim)
    return page.get_template(name, globals={"css": Markup(css)})  # nosec B704 # of the package
