"""The data of a study: a user's own, or synthetic studies that are drawn once; and what tells them from others."""

import hashlib
import os
import time
from pathlib import Path

from cmcgns.common.claim import FolderInUse
from cmcgns.common.errors import UserError
from cmcgns.common.files import write_json
from cmcgns.common.stored import read_json
from cmcgns.data.manifest import read_manifest
from cmcgns.data.pairs.table import TABLE_NAMES
from cmcgns.data.shards.index import open_shards
from cmcgns.data.tables import find_table, table_sha256
from cmcgns.evaluation.data import dataset_of, result_name
from cmcgns.evaluation.results import slug
from cmcgns.evaluation.select import Pair, choose
from cmcgns.phantom import write_dataset
from cmcgns.study.plan import Plan
from cmcgns.study.settings import Phantom, PhantomData

PHANTOM = "phantom.json"  # which synthetic studies a folder has
_MOST_WORKERS = 32  # a Python each
_WAIT = 1.0  # seconds between two looks at what another process draws


def study_data(plan: Plan, out: Path) -> tuple[Path, list[Pair]]:
    """The data to pretrain on, and every protocol with the data that it judges on.

    Synthetic studies are drawn unless they are there; two processes do not draw the same ones.

    Args:
        plan: the study.
        out: its folder, which exists.

    Raises:
        UserError: other synthetic studies are in the folder, or data that a protocol cannot be run on.
    """
    stated = plan.settings.data
    if isinstance(stated, PhantomData):
        _refuse_others(stated.phantom, out)
        train, judged = _draw(stated.phantom, out)
    else:
        train = judged = Path(stated)
    pairs, first = [], dict[str, str]()
    for each in plan.judging:
        folder = Path(each.entry.data) if each.entry.data else judged
        choose(each.entry.protocol, [folder], each.entry.set)  # refuses a dataset that is not the protocol's
        called = slug(result_name(each.protocol, dataset_of(read_manifest(folder), folder)))
        if (before := first.setdefault(called, each.name)) != each.name:
            raise UserError(
                f"judge: the figures of {before} and {each.name} would have one name, {called}: leave one out, or "
                "give one protocol another id"
            )
        pairs.append((each.protocol, folder.absolute()))
    return train.absolute(), pairs


def fingerprint(train: Path, pairs: list[Pair], out: Path) -> str:
    """Hash of what the tables of a study say; those of prepared data have the hash of every image.

    Of studies that were drawn in `out` the images' hashes do not count: processors round differently, so that on
    another one an image in a hundred has a pixel that is one grey level off. So a study goes on elsewhere.
    """
    trained, judged = _table(train), {_table(folder) for _, folder in pairs}

    def said(table: Path) -> str:
        return table_sha256(table, without=("sha256",) if table.is_relative_to(out.absolute()) else ())

    hashes = [said(trained), *sorted(map(said, judged - {trained}))]  # whatever the order of `judge`
    return hashlib.sha256("\n".join(hashes).encode()).hexdigest()


def _table(data: Path) -> Path:
    shards = open_shards(data)
    return find_table(data, TABLE_NAMES) if shards is None else shards.index


def _refuse_others(phantom: Phantom, out: Path) -> None:
    """Note which studies are drawn, or compare with what was noted."""
    file, asked = out / PHANTOM, phantom.model_dump()
    if not file.is_file():
        write_json(file, asked)
        return
    stored = read_json(file, f"delete {out / 'data'}, {out / 'test'} and it, and they are drawn again")
    before = Phantom().model_dump() | stored  # what is younger than the file was as by default
    if before != asked:
        raise UserError(
            f"{file}: the folder has other synthetic studies ({before}, now {asked}): choose another --out"
        )


def _draw(phantom: Phantom, out: Path) -> tuple[Path, Path]:
    """Folders to pretrain on and to judge on; the latter has labelled studies of its own, which no run has seen."""
    judged = {"train": phantom.labelled or phantom.train, "val": phantom.val, "test": phantom.test}
    wanted = {
        out / "data": ({"train": phantom.train, "val": phantom.val}, phantom.seed),
        out / "test": (judged, phantom.seed + 1),
    }
    for folder, (counts, seed) in wanted.items():
        while not (folder / "manifest.parquet").is_file():
            try:
                workers = min(os.cpu_count() or 1, _MOST_WORKERS)
                write_dataset(folder, counts, seed=seed, size=phantom.size, workers=workers, level=phantom.level)
            except FolderInUse:
                time.sleep(_WAIT)
            except UserError:
                if not (folder / "manifest.parquet").is_file():  # else another process has just drawn them
                    raise
    return out / "data", out / "test"
