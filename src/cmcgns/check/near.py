"""Near duplicates within and across splits and manifests."""

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cmcgns.check.rule import (
    Finding,
    Loaded,
    behind_first_split,
    group_findings,
    in_several_splits,
    rule,
    split_rank,
    spread_text,
)
from cmcgns.data.images.near_duplicates import near_duplicates


@rule(
    "near-duplicate", "the same picture twice; an error if in more than one of train, val and test", opens_images=True
)
def near_duplicate(manifests: Sequence[Loaded]) -> Iterator[Finding]:
    """Pictures that differ in compression, size, brightness or a narrow crop.

    Across splits `fix` keeps test, else val; within a split all stay: which copy is better is for the user to say.
    """
    table = _near_groups(manifests)
    across = in_several_splits(table)
    table["drop"] = behind_first_split(table) & across

    def describe(rows: pd.DataFrame) -> str:
        likeness = f"correlation {rows['correlation'].min():.3f}"
        return f"the same picture ({likeness}) is in {spread_text(rows, manifests)}: {_names(rows)}"

    yield from group_findings(manifests, table[across], "error", describe, "pictures in several splits")
    within = ~table["key"].isin(table["key"][across])
    yield from group_findings(manifests, table[within], "warning", describe, "pictures that stand twice")


def _names(rows: pd.DataFrame) -> str:
    more = f" and {len(rows) - 3} more" if len(rows) > 3 else ""
    return ", ".join(rows["name"].iloc[:3]) + more


def _near_groups(manifests: Sequence[Loaded]) -> pd.DataFrame:
    """Rows whose picture has a near duplicate, the members of a group with one `key`.

    Files that are the same byte by byte are left to the rules about sha256: one of each stands for the others.
    """
    table, hashes, thumbnails = _candidates(manifests)
    pairs, correlations = near_duplicates(hashes, thumbnails)
    table["key"] = _components(len(table), pairs)
    table["correlation"] = 1.0
    lowest = table["correlation"].to_numpy(copy=True)
    for end in (0, 1):
        np.minimum.at(lowest, pairs[:, end], correlations)
    table["correlation"] = lowest
    return table[np.isin(np.arange(len(table)), pairs)]


def _candidates(manifests: Sequence[Loaded]) -> tuple[pd.DataFrame, NDArray[np.uint64], NDArray[np.uint8]]:
    parts, facts = [], []
    for number, loaded in enumerate(manifests):
        assert loaded.images is not None, "rules about images run only where they were opened"
        values = loaded.images.facts
        rows = np.flatnonzero(loaded.images.read & (values["high"] > values["low"]))
        frame = loaded.frame.iloc[rows]
        part = frame[["image_path", "split", "sha256"]].rename(columns={"image_path": "name"})
        parts.append(part.assign(rank=split_rank(frame["split"]), manifest=number, row=rows))
        facts.append(values[rows])
    table = pd.concat(parts, ignore_index=True)
    order = table.sort_values(["rank", "manifest", "row"], kind="stable")
    kept = order.index[(order["sha256"] == "") | ~order.duplicated("sha256")].sort_values()
    measured = np.concatenate(facts)[kept.to_numpy()]
    return table.loc[kept].reset_index(drop=True), measured["hashes"], measured["thumbnails"]


def _components(count: int, pairs: NDArray[np.int64]) -> NDArray[np.int64]:
    """(count,) number of the group that each position is in; pairs join groups."""
    group = np.arange(count)
    changed = True
    while changed:
        lowest = group.copy()
        np.minimum.at(lowest, pairs[:, 0], group[pairs[:, 1]])
        np.minimum.at(lowest, pairs[:, 1], group[pairs[:, 0]])
        changed = not np.array_equal(lowest, group)
        group = lowest
    return group
