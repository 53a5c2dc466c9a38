"""One short reader per public dataset, found by name; `sources.yaml` says what each dataset is."""

import importlib
from functools import cache, partial
from pathlib import Path
from typing import Any

from cmcgns.common.errors import UserError, did_you_mean
from cmcgns.common.packaged import packaged_text
from cmcgns.prepare.sources.base import Reader, Source, SourceOptions, SourceTable
from cmcgns.prepare.sources.cells import describe_shared_patients
from cmcgns.settings.yaml import parse_mapping


@cache
def _descriptions() -> dict[str, Any]:
    return parse_mapping(packaged_text(__name__, "sources.yaml"), "sources.yaml")


def source_names() -> list[str]:
    """Names that `get_source` knows."""
    return list(_descriptions())


def get_source(name: str) -> Source:
    """The dataset of that name; its reader's module is imported now.

    Raises:
        UserError: no such dataset; gives the nearest name and the whole list.
    """
    known = _descriptions()
    if name not in known:
        wanted = name.lower().replace("_", "-").replace(" ", "-")
        hint = did_you_mean(wanted, known)
        raise UserError(f"no dataset is called {name!r} (known: {', '.join(known)}).{hint}")
    reader = importlib.import_module(f"{__name__}.{name.replace('-', '_')}")
    return Source(name, **known[name], read=partial(_read, reader.read))


def _read(reader: Reader, root: Path, options: SourceOptions) -> SourceTable:
    """What a reader gives, with a note of what was looked up and not believed: who is in several splits."""
    table = reader(root, options)
    note = describe_shared_patients(table.frame)
    table.notes += [note] if note else []
    return table
