"""Classes that files of a package register."""

import sys
from pathlib import Path

import pytest

from cmcgns.common.errors import UserError
from cmcgns.common.registry import Registry


def test_a_file_that_cannot_be_imported_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A rival that somebody has added must not stop every command with a traceback."""
    package = tmp_path / "some_registry"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "good.py").write_text("")
    (package / "torn.py").write_text("class Torn(")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(UserError, match=r"some_registry\.torn cannot be imported: SyntaxError: .*line 1"):
        Registry[object]("some_registry").load()
    (package / "torn.py").write_text("import numpyy\n")
    with pytest.raises(UserError, match=r"some_registry\.torn cannot be imported: ModuleNotFoundError: .*numpyy"):
        Registry[object]("some_registry").load()
    (package / "torn.py").write_text("")
    assert Registry[object]("some_registry").load() == {}
    for name in ("some_registry", "some_registry.good", "some_registry.torn"):
        sys.modules.pop(name, None)
