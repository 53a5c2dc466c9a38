"""Radiographs out of shards, in an order that reads each shard once or twice an epoch.

The order is a pure function of seed, epoch, ranks and workers, so resuming at any step needs no state: the shards are
shuffled, and their rows within them; this sequence is cut into one piece for every rank and worker, which reads its
piece a few shards at a time and shuffles the rows of these once more. A piece may begin and end within a shard, so
every rank has the same number of steps whatever the shards hold. Rows that do not fill a last global batch come up in
another epoch's shuffle.
"""

import logging
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cmcgns.common.array_cache import MappedArray, cache_folder, cached_array
from cmcgns.common.errors import UserError
from cmcgns.common.processes import in_threads
from cmcgns.common.remote import NamedBytes, join
from cmcgns.data.images.files import STORED
from cmcgns.data.images.place import Pixels
from cmcgns.data.images.read import pixel_digest, read_image
from cmcgns.data.pairs.batch import BatchRequest, TrainingOrder, steps_per_epoch
from cmcgns.data.pairs.dataset import PairDataset
from cmcgns.data.pairs.images import SomeImages
from cmcgns.data.shards.index import AGAIN, ShardFolder

logger = logging.getLogger(__name__)

NO_NEAR_BATCHES = (
    "training.batches=near needs every image at hand, but shards are read one after the other: set "
    "training.batches=shuffled, or give the prepared folder without shards"
)
GROUP = 4  # shards that a worker holds in memory, compressed, and mixes


class ShardImages:
    """The images of a manifest's rows, read from shards on demand; stands where an array of all images would.

    Args:
        folder: the shards.
        shards: (n,) name of each row's shard.
        members: (n,) name of each row's image within it.
        size: side of the squares.
    """

    def __init__(self, folder: ShardFolder, shards: NDArray[Any], members: NDArray[Any], size: int) -> None:
        unknown = np.setdiff1d(shards.astype(str), list(folder.shards))
        if len(unknown):
            raise UserError(f"{folder.manifest}: shard {unknown[0]} is not in {folder.index.name}; {AGAIN}")
        names, numbers = np.unique(shards.astype(str), return_inverse=True)
        self.folder, self.names, self.shard_of_row = folder, names.tolist(), numbers.astype(np.int32)
        self.members, self.size = members.astype("S"), size
        self._held: OrderedDict[str, dict[str, bytes]] = OrderedDict()

    @property
    def shape(self) -> tuple[int, int, int]:
        """(n, size, size), as of an array."""
        return len(self.members), self.size, self.size

    def __getitem__(self, rows: NDArray[np.int64]) -> Pixels:
        """(b,) rows -> (b, size, size) uint8.

        Raises:
            UserError: a shard or image that cannot be read; names it.
        """
        pixels = np.empty((len(rows), self.size, self.size), dtype=np.uint8)
        for place, row in enumerate(rows):
            pixels[place] = self._decode(int(row))
        return pixels

    def load(self, rows: NDArray[np.int64], progress: Callable[[int], None] | None = None) -> SomeImages:
        """Decode rows once, shard by shard, into an array in the cache; the same rows are found there again."""
        shard_of, shape = self.shard_of_row[rows], (len(rows), self.size, self.size)
        digest = pixel_digest()
        used = [self.folder.shards[self.names[number]].sha256 for number in np.unique(shard_of)]
        digest.update("\n".join(used).encode() + self.members[rows].tobytes())
        file = cache_folder() / f"shards-{self.size}-{digest.hexdigest()}.npy"

        def fill(array: MappedArray, _: Sequence[int]) -> None:
            def decode(place: int) -> None:
                array[place] = self._decode(int(rows[place]))

            for number in np.unique(shard_of):
                self._shard(self.names[number])
                in_threads(decode, np.flatnonzero(shard_of == number).tolist(), progress)
            self._held.clear()

        places = np.full(len(self.members), -1, dtype=np.int64)
        places[rows] = np.arange(len(rows))
        return SomeImages(cached_array(file, shape, np.uint8, fill), places)

    def _decode(self, row: int) -> Pixels:
        shard, member = self.names[self.shard_of_row[row]], self.members[row].decode()
        where = f"{join(self.folder.location, shard)}: {member}"
        content = self._shard(shard).get(member)
        if content is None:
            raise UserError(f"{where} is not in the shard; {AGAIN}")
        return read_image(NamedBytes(content, where), self.size, STORED)

    def _shard(self, name: str) -> dict[str, bytes]:
        # The rows of a group come before those of the next, so that the shard used longest ago is done with.
        if name not in self._held:
            while len(self._held) >= GROUP:
                self._held.popitem(last=False)
            self._held[name] = self.folder.read(name)
        self._held.move_to_end(name)
        return self._held[name]


class StreamOrder:
    """The batches of one epoch for one rank, from a given step on; batch k belongs to worker k modulo workers.

    Args:
        shard_of_row: (n,) number of each training row's shard.
        batch_size: studies a rank.
        epoch_seed: mixed from seed, stage and epoch.
        start: first step.
        rank: of this process.
        ranks: of all.
        workers: loader processes of each rank; 0 (this process itself) counts as one.
    """

    def __init__(
        self,
        shard_of_row: NDArray[np.int32],
        batch_size: int,
        epoch_seed: int,
        start: int = 0,
        rank: int = 0,
        ranks: int = 1,
        workers: int = 1,
    ) -> None:
        self.batch_size, self.epoch_seed, self.start = batch_size, epoch_seed, start
        self.alone = ranks == 1
        self.steps = steps_per_epoch(len(shard_of_row), batch_size, ranks)
        self.workers = max(1, workers)
        random = np.random.default_rng(epoch_seed)
        numbers, dense = np.unique(shard_of_row, return_inverse=True)
        self.shards = len(numbers)
        turn = random.permutation(len(numbers))[dense]  # when the row's shard has its turn
        sequence = np.lexsort((random.random(len(turn)), turn))
        again = random.random(len(turn))
        # Worker w of every rank has the steps w, w + workers, …
        sizes = [len(range(worker, self.steps, self.workers)) * batch_size for worker in range(self.workers)]
        first = rank * sum(sizes)
        self.pieces = []
        for size in sizes:
            piece = sequence[first : first + size]
            group = (turn[piece] - turn[piece[:1]]) // GROUP
            self.pieces.append(piece[np.lexsort((again[piece], group))])
            first += size

    def __iter__(self) -> Iterator[BatchRequest]:
        for step in range(self.start, self.steps):
            turn, worker = divmod(step, self.workers)
            rows = self.pieces[worker][turn * self.batch_size : (turn + 1) * self.batch_size]
            yield BatchRequest(rows, self.epoch_seed, rows if self.alone else None)

    def __len__(self) -> int:
        return self.steps - self.start


def training_order(
    dataset: PairDataset,
    batch_size: int,
    epoch_seed: int,
    start: int = 0,
    rank: int = 0,
    ranks: int = 1,
    nearest: NDArray[np.int64] | None = None,
) -> TrainingOrder | StreamOrder:
    """The order that suits where the images are: of an array as `TrainingOrder` says, or shard by shard.

    Raises:
        UserError: batches of near reports out of shards.
    """
    if not isinstance(dataset.images, ShardImages):
        return TrainingOrder(len(dataset), batch_size, epoch_seed, start, rank, ranks, nearest)
    if nearest is not None:
        raise UserError(NO_NEAR_BATCHES)
    shards, workers = dataset.images.shard_of_row[dataset.rows], max(1, dataset.settings.workers)
    order = StreamOrder(shards, batch_size, epoch_seed, start, rank, ranks, workers)
    _say_if_few(order.shards, ranks, workers)
    return order


@lru_cache  # once, not every epoch
def _say_if_few(shards: int, ranks: int, workers: int) -> None:
    if shards < ranks * workers:
        logger.warning(
            "%d shards for %d rank(s) × %d worker(s): some are read several times an epoch, and a batch mixes few; "
            "write smaller ones (cmcgns prepare … --shards N), or set data.workers lower",
            shards, ranks, workers,
        )  # fmt: skip
