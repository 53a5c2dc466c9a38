"""The rows of a resumed run: those that it was started with, or an error that names what has changed."""

import hashlib
import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cmcgns.common.errors import UserError
from cmcgns.common.files import sha256, sha256_of_files
from cmcgns.common.processes import in_threads
from cmcgns.common.remote import is_url
from cmcgns.data.images.place import Pixels
from cmcgns.data.images.read import load_images
from cmcgns.data.pairs.images import StoredImages
from cmcgns.data.pairs.rows import PairTable
from cmcgns.training.run_folder import RunFolder
from cmcgns.training.seen import open_seen

logger = logging.getLogger(__name__)

_SHOWN = 10  # rows in a message
_WAY_OUT = "Put them back as they were, or start anew in another folder"


@dataclass(frozen=True)
class ResumedRows:
    """What a run was started with.

    Attributes:
        frame: row (of the table, from 1), part (train or val), entry, pixels and sha256 (hashes), in the run's order.
        table_sha256: hash of the table; None: not known.
    """

    frame: pd.DataFrame
    table_sha256: str | None

    def keep(self, pairs: PairTable) -> None:
        """Drop the rows that the run was started without.

        Raises:
            UserError: the table has changed, or one of the run's rows cannot be used any more.
        """
        place = pd.Series(pairs.frame.index, index=pairs.frame["row"]).reindex(self.frame["row"])
        same = place.notna().to_numpy()
        gone = self.frame["row"][~same].tolist()
        if self.table_sha256 is None or self.table_sha256 != sha256(pairs.source):
            found = entry_stamps(pairs)[place[same].to_numpy(dtype=np.int64)]
            gone = sorted([*gone, *self.frame["row"][same][found != self.frame["entry"][same]]])
        if gone or self.table_sha256 not in (None, sha256(pairs.source)):
            what = f"rows {_listed(gone)} of the run are others" if gone else "the rows of the run are as they were"
            raise UserError(
                f"--resume: {pairs.source} has changed since the run started ({what}). Put it back as it was, or "
                "start anew in another folder"
            )
        pairs.frame = pairs.frame.loc[sorted(place)].reset_index(drop=True)

    def split(self, pairs: PairTable) -> tuple[pd.Index, pd.Index]:
        """Training and validation rows as row indices of the frame that `keep` left."""
        place = pd.Series(pairs.frame.index, index=pairs.frame["row"])
        train, validation = (place[self.frame["row"][self.frame["part"] == part]] for part in ("train", "val"))
        return pd.Index(train), pd.Index(validation)

    def read_images(self, pairs: PairTable, size: int, progress: Callable[[int], None] | None = None) -> Pixels:
        """All images of the rows that `keep` left, as :func:`cmcgns.data.images.read.load_images` returns them.

        Raises:
            UserError: one of them is missing or cannot be read any more.
        """
        paths = pairs.frame["image_path"].tolist()
        errors = {
            row: f"{path}: missing" for row, path in enumerate(paths) if not is_url(path) and not Path(path).is_file()
        }
        if not errors:
            images, errors = load_images(paths, size, progress)
        if errors:
            raise _cannot_go_on(pairs, errors, "cannot be read any more")
        return images

    def check_pixels(self, pairs: PairTable, part: str, images: StoredImages, rows: NDArray[np.int64]) -> None:
        """Compare pictures with those that the run was started with; of an unchanged file other ones are accepted.

        Args:
            pairs: the rows that `keep` left.
            part: train or val.
            images: of all rows.
            rows: those of the part, in the order of `split`.

        Raises:
            UserError: a picture is another one.
        """
        noted = self.frame[self.frame["part"] == part]
        other = (noted["pixels"].notna() & (noted["pixels"] != pixel_stamps(images, rows))).to_numpy(dtype=bool)
        if not other.any():
            return
        paths = pairs.frame["image_path"].iloc[rows[other]]
        files, before = np.array(sha256_of_files(paths.tolist())), noted["sha256"].to_numpy(dtype=str)[other]
        replaced = paths[(files == "") | (files != before)]
        if len(replaced):
            raise _cannot_go_on(pairs, replaced.to_dict(), "have been replaced")
        logger.warning(
            "%s: %d %s images have other pixels than when the run started, though their files are the same: "
            "another version of Pillow or cmcgns decodes them. The run goes on, but not bit for bit as with that one",
            pairs.source.name, len(paths), part,
        )  # fmt: skip


def rows_of(folder: RunFolder) -> ResumedRows | None:
    """What the run in a folder was started with; None, with a word in the log, where that is not known."""
    seen = open_seen(folder.seen)
    frame = seen.entered if seen is not None else None
    if frame is None:
        why = "is missing" if seen is None else "is of an earlier version"
        logger.warning("%s %s: the run goes on with the rows and images that there are now", folder.seen, why)
        return None
    return ResumedRows(frame, folder.read_provenance().get("manifest_sha256"))


def entry_stamps(pairs: PairTable) -> NDArray[np.int64]:
    """(n,) hashes of what each row says: image, study, patient, report; wherever the images' folder is."""
    root = f"{pairs.images.resolve()}/"
    columns = [pairs.frame[name].str.removeprefix(root) for name in ("image_path", "study_id", "patient_id", "text")]
    stamps = [_stamp("\0".join(cells).encode()) for cells in zip(*columns, strict=True)]
    return np.array(stamps, dtype=np.int64)


def pixel_stamps(images: StoredImages, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """(k,) hashes of stored pictures.

    Args:
        images: (n, S, S) uint8.
        rows: (k,) which ones.
    """
    stamps = in_threads(partial(_pixel_stamp, images), np.array_split(rows, max(1, len(rows) // 64)))
    return np.concatenate(stamps)


def _pixel_stamp(images: StoredImages, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.array([_stamp(np.ascontiguousarray(square).data) for square in images[rows]], dtype=np.int64)


def _stamp(content: bytes | memoryview) -> int:
    return int.from_bytes(hashlib.sha256(content).digest()[:8], "little", signed=True)


def _cannot_go_on(pairs: PairTable, images: dict[int, str], what: str) -> UserError:
    rows = pairs.frame["row"]
    shown = "\n  ".join(f"row {rows[index]}: {text}" for index, text in list(images.items())[:_SHOWN])
    return UserError(
        f"--resume: {pairs.source}: {len(images)} images that the run was started with {what}:\n  {shown}\n{_WAY_OUT}"
    )


def _listed(rows: list[int]) -> str:
    return ", ".join(map(str, rows[:_SHOWN])) + (", …" if len(rows) > _SHOWN else "")
