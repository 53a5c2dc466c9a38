"""One short reader per public dataset, found by name."""

import difflib
import importlib

from cmcgns.common.errors import UserError
from cmcgns.prepare.sources.base import Source

# name on the command line -> module; a module is imported when its dataset is asked for
_MODULES = {
    "mimic-cxr": "mimic_cxr",
    "openi": "openi",
    "chexpert": "chexpert",
    "rsna": "rsna",
    "covidx": "covidx",
    "siim": "siim",
    "object-cxr": "object_cxr",
    "nih": "nih",
    "vindr": "vindr",
    "table": "table",
}


def source_names() -> list[str]:
    """Names that `get_source` knows."""
    return list(_MODULES)


def get_source(name: str) -> Source:
    """The dataset of that name.

    Raises:
        UserError: no such dataset; gives the nearest name and the whole list.
    """
    if name not in _MODULES:
        wanted = name.lower().replace("_", "-").replace(" ", "-")
        near = difflib.get_close_matches(wanted, _MODULES, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise UserError(f"no dataset is called {name!r}; {hint}(known: {', '.join(_MODULES)})")
    source = importlib.import_module(f"{__name__}.{_MODULES[name]}").SOURCE
    if not isinstance(source, Source):
        raise TypeError(f"{_MODULES[name]}.SOURCE is a {type(source).__name__}, not a Source")
    return source
