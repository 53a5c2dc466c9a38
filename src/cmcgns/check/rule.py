"""What a check is and what it says: rules by name, each giving findings; rows that share a key."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cmcgns.check.box_table import parse_boxes
from cmcgns.check.image_facts import ImageFacts

Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")
MOST_GROUPS = 1_000  # findings of one rule that are spelled out; the others share one finding
_SHOWN_ROWS = 5


@dataclass(frozen=True)
class Finding:
    """One fault.

    Attributes:
        rule: name of the rule that found it.
        severity: an error makes results wrong or training stop; a warning may; a note is for the user to judge.
        where: file, or manifest and rows, as shown. Rows are shown counted from 1, as in all messages.
        message: what is wrong; never a patient's name or another identifier found in text.
        rows: positions in the manifest, counted from 0.
        drop: those of them that :func:`cmcgns.check.fix.fix` leaves out.
        manifest: the manifest the rows belong to.
    """

    rule: str
    severity: Severity
    where: str
    message: str
    rows: tuple[int, ...] = ()
    drop: tuple[int, ...] = ()
    manifest: Path = Path()


@dataclass(frozen=True)
class Loaded:
    """A manifest in memory.

    Attributes:
        file: the parquet file.
        frame: its rows, in the schema's types.
        images: what opening the stored images showed; None where they were not opened.
    """

    file: Path
    frame: pd.DataFrame = field(repr=False)
    images: ImageFacts | None = field(default=None, repr=False)

    @cached_property
    def boxes(self) -> tuple[pd.DataFrame, list[int]]:
        """The boxes as numbers, and the rows where there is no reading them (:func:`parse_boxes`)."""
        return parse_boxes(self.frame)

    def finding(
        self,
        severity: Severity,
        message: str,
        rows: Iterable[int],
        drop: Iterable[int] | None = None,
        where: str = "",
    ) -> Finding:
        """A finding about rows of this manifest; the rule's name is filled in by :func:`rule`.

        Args:
            severity: how bad it is.
            message: what is wrong.
            rows: positions from 0.
            drop: what `fix` leaves out; by default all rows of an error, and none otherwise.
            where: the file, if one file is at fault; by default the manifest and the rows.
        """
        rows = tuple(int(row) for row in rows)
        drop = tuple(int(row) for row in drop) if drop is not None else rows if severity == "error" else ()
        return Finding("", severity, where or f"{self.file}, {show_rows(rows)}", message, rows, drop, self.file)


def show_rows(rows: Sequence[int]) -> str:
    """Positions from 0 as people read them: "rows 1, 5, 9 and 12 more"."""
    shown = ", ".join(str(row + 1) for row in rows[:_SHOWN_ROWS])
    more = f" and {len(rows) - _SHOWN_ROWS:,} more" if len(rows) > _SHOWN_ROWS else ""
    return f"row{'s' if len(rows) != 1 else ''} {shown}{more}"


def positions(mask: "pd.Series[bool]") -> list[int]:
    """Where a mask holds, counted from 0; missing values do not hold."""
    return np.flatnonzero(mask.fillna(False).to_numpy(dtype=bool)).tolist()


Check = Callable[[Sequence[Loaded]], Iterable[Finding]]


@dataclass(frozen=True)
class Rule:
    """A named check.

    Attributes:
        name: kebab-case.
        description: one line, said of the fault.
        opens_images: whether it needs the stored images' facts.
        check: the function.
    """

    name: str
    description: str
    opens_images: bool
    check: Check


RULES: dict[str, Rule] = {}


def rule(name: str, description: str, opens_images: bool = False) -> Callable[[Check], Check]:
    """Register a function over all manifests together as a rule; its findings get the rule's name."""

    def register(check: Check) -> Check:
        def named(manifests: Sequence[Loaded]) -> Iterator[Finding]:
            for finding in check(manifests):
                yield replace(finding, rule=name)

        RULES[name] = Rule(name, description, opens_images, named)
        return named

    return register


def each(check: Callable[[Loaded], Iterable[Finding]]) -> Check:
    """A function over one manifest as one over several, taken one by one."""

    def over_all(manifests: Sequence[Loaded]) -> Iterator[Finding]:
        for loaded in manifests:
            yield from check(loaded)

    return over_all


def rules() -> dict[str, str]:
    """Name -> one-line description of every rule."""
    return {name: entry.description for name, entry in RULES.items()}


_KEPT_FIRST = {"test": 0, "val": 1, "train": 2}  # a test set is the costliest to shrink
_NO_SPLIT = 3


def stack(manifests: Sequence[Loaded], column: str) -> pd.DataFrame:
    """One row per manifest row with a non-empty key: `key` (code), `name`, `split`, `rank`, `manifest`, `row`."""
    parts = [
        pd.DataFrame(
            {
                "name": loaded.frame[column].to_numpy(),
                "split": loaded.frame["split"].astype("category").to_numpy(),
                "rank": split_rank(loaded.frame["split"]),
                "manifest": np.full(len(loaded.frame), number, dtype=np.int32),
                "row": np.arange(len(loaded.frame)),
            }
        )
        for number, loaded in enumerate(manifests)
    ]
    table = pd.concat(parts, ignore_index=True)
    table["split"] = table["split"].astype("str")
    table = table[table["name"] != ""]
    return table.assign(key=pd.factorize(table["name"])[0])


def split_rank(splits: "pd.Series[str]") -> NDArray[np.int8]:
    """(n,) 0 test, 1 val, 2 train, 3 anything else."""
    ranks: NDArray[np.int8] = splits.map(_KEPT_FIRST).fillna(_NO_SPLIT).to_numpy().astype(np.int8)
    return ranks


def in_several_splits(table: pd.DataFrame) -> "pd.Series[bool]":
    """Whether a row's key is in more than one of test, val and train; the key's rows without a split do not count."""
    named = table.loc[table["rank"] < _NO_SPLIT]
    ranks = named.groupby("key")["rank"]
    spread = ranks.min() != ranks.max()
    return table["key"].isin(spread.index[spread]) & (table["rank"] < _NO_SPLIT)


def behind_first_split(table: pd.DataFrame) -> "pd.Series[bool]":
    """Rows whose key is also in a split that is kept rather (test, then val)."""
    return table["rank"] > table.groupby("key")["rank"].transform("min")


def behind_first_row(table: pd.DataFrame) -> "pd.Series[bool]":
    """All rows of a key but one: the first of the split that is kept rather."""
    order = table.sort_values(["rank", "manifest", "row"], kind="stable")
    return order.duplicated("key").reindex(table.index)


def spread_text(rows: pd.DataFrame, manifests: Sequence[Loaded]) -> str:
    """Where the rows of one key are: "train (3 rows) and test (1 row)", with manifests where there are several."""
    several = rows["manifest"].nunique() > 1
    parts = []
    for (number, split), group in rows.groupby(["manifest", "split"], sort=True):
        place = f"{manifests[int(str(number))].file}, " if several else ""
        parts.append(f"{split or 'no split'} ({place}{len(group):,} row{'s' if len(group) != 1 else ''})")
    return " and ".join(parts)


def group_findings(
    manifests: Sequence[Loaded],
    table: pd.DataFrame,
    severity: Severity,
    describe: Callable[[pd.DataFrame], str],
    many: str,
) -> Iterator[Finding]:
    """A finding per key and manifest; of very many keys the last ones share a finding.

    Args:
        manifests: all of them.
        table: rows at fault, as :func:`stack` gives them, with a column `drop`.
        severity: of all findings.
        describe: the message about the rows of one key.
        many: what the keys are, for the shared finding ("patients in several splits").
    """
    codes = pd.factorize(table["key"])[0]
    listed = table[codes < MOST_GROUPS]
    for _, rows in listed.groupby("key", sort=False):
        message = describe(rows)
        for number, part in rows.groupby("manifest"):
            yield manifests[int(str(number))].finding(severity, message, part["row"], part["row"][part["drop"]])
    rest = table[codes >= MOST_GROUPS]
    for number, part in rest.groupby("manifest"):
        message = f"{part['key'].nunique():,} more {many}"
        yield manifests[int(str(number))].finding(severity, message, part["row"], part["row"][part["drop"]])
