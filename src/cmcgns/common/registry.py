"""Classes that are found by a name, which they register in the files of one package."""

import pkgutil
from collections.abc import Callable
from functools import cache
from importlib import import_module
from typing import Any, Generic, TypeVar

from cmcgns.common.errors import UserError, one_line

T = TypeVar("T")
Kind = TypeVar("Kind", bound=type[Any])


class Registry(Generic[T]):
    """Classes by name.

    Args:
        package: whose files, in folders below it too, hold them.
    """

    def __init__(self, package: str) -> None:
        self._package = package
        self._kinds: dict[str, type[T]] = {}

    def register(self, name: str) -> Callable[[Kind], Kind]:
        """Class decorator: the class is found by this name."""

        def add(kind: Kind) -> Kind:
            first = self._kinds.setdefault(name, kind)
            if (first.__module__, first.__qualname__) != (kind.__module__, kind.__qualname__):
                raise ValueError(f"{name} is registered twice, in {first.__module__} and in {kind.__module__}")
            return kind

        return add

    def load(self) -> dict[str, type[T]]:
        """All of them, by name and in its order."""
        _import_all(self._package)
        return dict(sorted(self._kinds.items()))


@cache
def _import_all(package: str) -> None:
    for module in pkgutil.walk_packages(import_module(package).__path__, f"{package}."):
        try:
            import_module(module.name)  # which registers what it holds
        except Exception as error:  # of a file that somebody has added; everything else would stop with a traceback
            raise UserError(f"{module.name} cannot be imported: {type(error).__name__}: {one_line(error)}") from error
