"""The picture of docs/architecture.md, drawn from the import contracts in pyproject.toml and the real imports.

    python benchmarks/architecture.py            # write it anew
    python benchmarks/architecture.py --check    # status 1 where the page no longer fits the code

The page is stale when its picture is, or when a path or `path:name` that it names in backticks is not there.
"""

import argparse
import ast
import re
import sys
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import grimp

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "architecture.md"
PACKAGE = "cmcgns"
BEGIN, END = "<!-- drawn by benchmarks/architecture.py -->", "<!-- end -->"
ENDINGS = r"(?:py|yaml|yml|toml|md|j2|npz)"
NAMED = re.compile(rf"`([\w./-]+(?:\.{ENDINGS}|/))(?::([A-Za-z_][\w.]*))?`")
LINKED = re.compile(r"\]\((?!https?:)([^)#\s]+)(?:#[^)]*)?\)")
Arrows = dict[str, set[str]]


def contracts() -> list[dict[str, Any]]:
    """The import contracts."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    return list(settings["tool"]["importlinter"]["contracts"])


def floors(found: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """Folders by floor, the highest first."""
    (layers,) = (contract["layers"] for contract in found if contract["type"] == "layers")
    return [[short(name) for name in layer.split("|")] for layer in layers]


def short(name: str) -> str:
    """`cmcgns.data` -> `data`."""
    return name.strip().removeprefix(f"{PACKAGE}.")


def real_arrows() -> Arrows:
    """Which folder imports which, in the code as it is; also those imports that a function makes."""
    sys.path.insert(0, str(ROOT / "src"))  # of this checkout, whatever is installed
    graph = grimp.build_graph(PACKAGE, cache_dir=None)
    parts = sorted(graph.find_children(PACKAGE))
    return {
        short(one): {
            short(other)
            for other in parts
            if one != other and graph.direct_import_exists(importer=one, imported=other, as_packages=True)
        }
        for one in parts
    }


def reduced(arrows: Arrows) -> Arrows:
    """Without the arrows that a longer way implies; for graphs without circles."""

    def below(name: str) -> set[str]:
        return arrows[name].union(*(below(other) for other in arrows[name]))

    return {name: {x for x in uses if not any(x in below(y) for y in uses)} for name, uses in arrows.items()}


def draw(layers: Sequence[Sequence[str]], found: Sequence[Mapping[str, Any]], arrows: Arrows) -> str:
    """Picture and table as Markdown.

    Raises:
        SystemExit: a folder of the package is on no floor.
    """
    if homeless := sorted(arrows.keys() - {name for layer in layers for name in layer}):
        raise SystemExit(f"no floor of the contract in pyproject.toml holds {', '.join(homeless)}")
    order = [name for layer in layers for name in layer]
    fewer = reduced(arrows)
    lines = ["```mermaid", "flowchart TD"]
    lines += [f"  {name} --> {other}" for name in order for other in order if other in fewer[name]]
    lines += ["```", "", "| floor | folder | uses |", "|---|---|---|"]
    for number, layer in zip(range(len(layers), 0, -1), layers, strict=True):
        for name in layer:
            uses = ", ".join(other for other in order if other in arrows[name])
            lines.append(f"| {number} | {name} | {uses or 'nothing'} |")
    lines += ["", "The contracts, which `make check` holds:", ""]
    for contract in found:
        lines.append(f"- {contract['name']}{exclusions(contract)}.")
    return "\n".join(lines)


def exclusions(contract: Mapping[str, Any]) -> str:
    """Who must not import whom, of a contract that says so."""
    if contract["type"] != "forbidden":
        return ""
    sources, targets = (", ".join(map(short, contract[key])) for key in ("source_modules", "forbidden_modules"))
    return f" ({sources} must not import {targets})"


def with_picture(page: str, picture: str) -> str:
    """The page with another picture between its marks.

    Raises:
        SystemExit: the marks are not there, once each and in this order.
    """
    before, _, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not end or BEGIN in after or END in after:
        raise SystemExit(f"{PAGE.name} must hold {BEGIN!r} and behind it {END!r}, once each")
    return f"{before}{BEGIN}\n{picture}\n{END}{after}"


def missing(page: str) -> list[str]:
    """What the page names in backticks, or links to, and what is not there.

    Paths count from the root of the repository or from `src/cmcgns`, links from `docs`. A name is a function, class
    or variable of the module, or `Class.method`. Paths with a word in capitals stand for any (`sources/NAME.py`).
    """
    wrong = [f"{target}: no such file" for target in LINKED.findall(page) if not (PAGE.parent / target).exists()]
    for path, name in NAMED.findall(page):
        if "NAME" in path:
            continue
        places = [base / path for base in (ROOT, ROOT / "src" / PACKAGE) if (base / path).exists()]
        if not places:
            wrong.append(f"{path}: no such file")
        elif name and name not in names_in(places[0].read_text("utf-8")):
            wrong.append(f"{path}: nothing is called {name}")
    return wrong


def names_in(source: str) -> set[str]:
    """Top-level names of a module, and `Class.name` of what stands in its classes."""
    found = set()
    for node in ast.parse(source).body:
        found |= bound(node)
        if isinstance(node, ast.ClassDef):
            found |= {f"{node.name}.{name}" for inner in node.body for name in bound(inner)}
    return found


def bound(node: ast.stmt) -> set[str]:
    """Names that a statement gives a meaning."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return {node.name}
    if isinstance(node, ast.AnnAssign):
        return {node.target.id} if isinstance(node.target, ast.Name) else set()
    if isinstance(node, ast.Assign):
        return {name.id for target in node.targets for name in ast.walk(target) if isinstance(name, ast.Name)}
    return set()


def main(arguments: Sequence[str]) -> int:
    """Write the picture, or check the page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing")
    parser.add_argument("--page", type=Path, default=PAGE)
    options = parser.parse_args(arguments)
    found, page = contracts(), options.page.read_text("utf-8")
    drawn = with_picture(page, draw(floors(found), found, real_arrows()))
    wrong = [f"{options.page.name} names {line}" for line in missing(drawn)]
    if not options.check:
        options.page.write_text(drawn, "utf-8")
    elif drawn != page:
        wrong.append(f"{options.page.name}: the picture is stale; run python benchmarks/architecture.py")
    print("\n".join(wrong), file=sys.stderr, end="\n" if wrong else "")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
