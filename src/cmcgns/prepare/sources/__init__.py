"""One short reader per public dataset, found by name; `sources.yaml` says what each dataset is."""

import importlib
from functools import partial
from pathlib import Path
from typing import Any

from cmcgns.common.errors import UserError, did_you_mean
from cmcgns.common.packaged import packaged_yaml
from cmcgns.prepare.sources.base import OtherLayout, Reader, Source, SourceOptions, SourceTable
from cmcgns.prepare.sources.cells import describe_shared_patients

_DESCRIPTIONS: dict[str, Any] = packaged_yaml(__name__, "sources.yaml")


def source_names() -> list[str]:
    """Names that `get_source` knows."""
    return list(_DESCRIPTIONS)


def get_source(name: str) -> Source:
    """The dataset of that name; its reader's module is imported now.

    Raises:
        UserError: no such dataset; gives the nearest name and the whole list.
    """
    if name not in _DESCRIPTIONS:
        wanted = name.lower().replace("_", "-").replace(" ", "-")
        hint = did_you_mean(wanted, _DESCRIPTIONS)
        raise UserError(f"no dataset is called {name!r} (known: {', '.join(_DESCRIPTIONS)}).{hint}")
    reader = importlib.import_module(f"{__name__}.{name.replace('-', '_')}")
    return Source(name, **_DESCRIPTIONS[name], read=partial(_read, name, reader.read))


def _read(name: str, reader: Reader, root: Path, options: SourceOptions) -> SourceTable:
    """What a reader gives, with a note of what was looked up and not believed: who is in several splits."""
    try:
        table = reader(root, options)
    except OtherLayout as error:
        layout = "\n  ".join(_DESCRIPTIONS[name]["layout"])
        raise UserError(f"{error}; {name} is expected as it is published:\n  {layout}") from error
    note = describe_shared_patients(table.frame)
    table.notes += [note] if note else []
    return table
