"""Rows of several manifests that share a key, such as a patient or a file's hash."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cmcgns.check.finding import MOST_GROUPS, Finding, Loaded, Severity

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
