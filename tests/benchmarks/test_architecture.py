"""docs/architecture.md fits the code: its picture, and every path and name that it mentions."""

import importlib
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def program() -> ModuleType:
    pytest.importorskip("grimp", reason="comes with import-linter")
    sys.path.append(str(ROOT / "benchmarks"))
    return importlib.import_module("architecture")


def test_page_fits_the_code(program: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    """What `make check` runs: a stale picture, or something that is named and not there, is printed."""
    status = program.main(["--check"])
    assert (status, capsys.readouterr().err) == (0, "")


def test_every_folder_stands_in_the_table(program: ModuleType) -> None:
    page = program.PAGE.read_text("utf-8")
    for entry in (ROOT / "src" / "cmcgns").iterdir():
        if (entry / "__init__.py").is_file() or entry.suffix == ".py":
            assert entry.stem.startswith("__") or f"| {entry.stem} |" in page


def test_page_about_speed_names_what_is_there(program: ModuleType) -> None:
    assert program.missing((ROOT / "docs" / "performance.md").read_text("utf-8")) == []


def test_every_benchmark_has_its_line() -> None:
    page = (ROOT / "benchmarks" / "README.md").read_text("utf-8")
    assert [file.name for file in (ROOT / "benchmarks").glob("*.py") if f"`{file.name}`" not in page] == []


def test_stale_picture_is_told_and_drawn_anew(
    program: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n{program.BEGIN}\nyesterday\n{program.END}\nafter\n", "utf-8")
    assert program.main(["--check", "--page", str(page)]) == 1
    assert "run python benchmarks/architecture.py" in capsys.readouterr().err
    assert "yesterday" in page.read_text("utf-8")
    assert program.main(["--page", str(page)]) == 0
    drawn = page.read_text("utf-8")
    assert drawn.startswith("before\n")
    assert drawn.endswith("\nafter\n")
    assert "yesterday" not in drawn
    assert program.main(["--check", "--page", str(page)]) == 0


def test_page_without_marks_is_refused(program: ModuleType) -> None:
    for page in ("nothing", program.BEGIN, f"{program.END} {program.BEGIN}", 2 * f"{program.BEGIN} {program.END}"):
        with pytest.raises(SystemExit, match="once each"):
            program.with_picture(page, "picture")


def test_arrows_that_a_longer_way_implies_are_left_out(program: ModuleType) -> None:
    arrows = {"top": {"middle", "side", "floor"}, "middle": {"floor"}, "side": set(), "floor": set()}
    assert program.reduced(arrows) == {"top": {"middle", "side"}, "middle": {"floor"}, "side": set(), "floor": set()}


def test_picture_and_table_of_a_small_house(program: ModuleType) -> None:
    contracts = [
        {"type": "layers", "name": "Downwards", "layers": ["cmcgns.roof", "cmcgns.left | cmcgns.right"]},
        {
            "type": "forbidden",
            "name": "Apart",
            "source_modules": ["cmcgns.left"],
            "forbidden_modules": ["cmcgns.right"],
        },
    ]
    layers = program.floors(contracts)
    assert layers == [["roof"], ["left", "right"]]
    arrows: dict[str, set[str]] = {"roof": {"left"}, "left": set(), "right": set()}
    text = program.draw(layers, contracts, arrows)
    assert "flowchart TD\n  roof --> left\n```" in text
    assert "| 2 | roof | left |\n| 1 | left | nothing |\n| 1 | right | nothing |" in text
    assert text.endswith("- Downwards.\n- Apart (left must not import right).")
    with pytest.raises(SystemExit, match=r"in pyproject\.toml holds cellar"):
        program.draw(layers, contracts, arrows | {"cellar": set()})


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("`training/step.py:training_step` and `pyproject.toml`", []),
        ("`training/run_folder.py:RunFolder.read_recipe`", []),
        ("`evaluation/tasks/__init__.py:get_task` in `evaluation/tasks/`", []),
        ("`prepare/sources/NAME.py`, `--set x`, `NAME/v1`, `test_pitfall_…`", []),
        ("`training/gone.py`", ["training/gone.py: no such file"]),
        ("`training/gone/`", ["training/gone/: no such file"]),
        ("`training/step.py:gone`", ["training/step.py: nothing is called gone"]),
        ("`training/run_folder.py:RunFolder.gone`", ["training/run_folder.py: nothing is called RunFolder.gone"]),
        ("`training/run_folder.py:read_recipe`", ["training/run_folder.py: nothing is called read_recipe"]),
        ("[a](method.md#the-method) [b](https://a.b/c.md) [c](gone.md)", ["gone.md: no such file"]),
    ],
)
def test_what_is_named_and_not_there_is_found(program: ModuleType, text: str, wrong: list[str]) -> None:
    assert program.missing(text) == wrong


def test_names_of_a_module(program: ModuleType) -> None:
    source = "A, B = 1, 2\nC: int = 3\nasync def d(): e = 1\nclass F:\n    g = 1\n    def h(self): ...\n"
    assert program.names_in(source) == {"A", "B", "C", "d", "F", "F.g", "F.h"}
