"""The cluster bank: K unit centroids of sentence vectors, kept in buffers (ClusterNS, Deng et al. 2023)."""

import logging
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cmcgns.objectives.centroids import Update, assign_two, move_centroids, seed_centroids, worst_fit
from cmcgns.objectives.collective import gather, total
from cmcgns.objectives.report_clusters import newest_places
from cmcgns.settings.config import BankSettings

logger = logging.getLogger(__name__)

_FORGET = 0.01  # of the moving average of cluster shares
_TEN_STEPS = 1 - (1 - _FORGET) ** 9.5
_DEAD = 0.05  # of an equal share: a centroid below has no members to speak of


class ClusterBank(nn.Module):
    """Centroids that start once sentences have spread out, and then follow every training step.

    All state lives in buffers: it is saved, loaded and moved with the weights, and never reaches an
    optimiser. After the start a step reads nothing back to the host; before it, only every `check_every` steps.

    Args:
        dim: width D.
        settings: number of centroids K, momentum rate, start conditions. Until the attention has learned something,
            the cross-modal vectors of all sentences are alike, and centroids seeded among them die.
        update: `mean` (the method) or `sum` (released).
        queue_size: sentences kept for seeding; by default eight times K, and at least 1,024.
        seed: of the random first choice.
    """

    centroids: Tensor
    queries: Tensor
    means: Tensor
    active: Tensor
    started: Tensor
    steps: Tensor
    mean_cosine: Tensor
    queue: Tensor
    queue_step: Tensor
    usage: Tensor
    watched: Tensor

    def __init__(
        self,
        dim: int,
        settings: BankSettings,
        *,
        update: Update = "mean",
        queue_size: int | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.settings, self.update_kind, self.seed = settings, update, seed
        self.clusters = clusters = settings.clusters
        size = queue_size or max(1024, 8 * clusters)
        self.register_buffer("centroids", torch.zeros(clusters, dim))
        self.register_buffer("queries", torch.zeros(clusters, dim))
        self.register_buffer("means", torch.zeros(2, dim))
        self.register_buffer("active", torch.zeros(clusters, dtype=torch.bool))
        self.register_buffer("started", torch.tensor(False))
        self.register_buffer("steps", torch.tensor(0))
        self.register_buffer("mean_cosine", torch.tensor(1.0))
        # One row more than the queue holds: the place where padding is written to.
        self.register_buffer("queue", torch.zeros(size + 1, 2, dim))
        self.register_buffer("queue_step", torch.zeros(size + 1, dtype=torch.long))
        self.register_buffer("usage", torch.zeros(clusters))
        self.register_buffer("watched", torch.tensor(0.0))
        self._host_started, self._host_steps = False, 0
        self.register_load_state_dict_post_hook(_mirror_on_host)  # type: ignore[no-untyped-call]

    @property
    def is_started(self) -> bool:
        """Whether there are centroids; known on the host, so asking costs nothing."""
        return self._host_started

    @property
    def shares(self) -> Tensor:
        """(K,) shares of the sentences of about the last hundred steps; equal until ten steps were seen."""
        equal = torch.full_like(self.usage, 1 / self.clusters)
        return torch.where(self.watched > _TEN_STEPS, self.usage / self.watched.clamp(min=1e-9), equal)

    @property
    def known_shares(self) -> Tensor | None:
        """`shares` once ten steps were seen, else None; asking reads back from the device."""
        return self.shares if self.is_started and bool(self.watched > _TEN_STEPS) else None

    @property
    def dead(self) -> Tensor:
        """(K,) centroids that hold less than a twentieth of an equal share: no members to speak of."""
        return self.shares < _DEAD / self.clusters

    def members(self, z1: Tensor, z2: Tensor) -> Tensor:
        """What is clustered of (n, D) unit sentence and cross-modal vectors: (n, D), unit.

        `centred`: sentences and what they see live apart, |mean z1 - mean z2| is about a half. Less its mean each has
        the same weight, and "no effusion" parts from "effusion" because the images differ.
        """
        if self.settings.source == "text":
            return z1
        if self.settings.source == "cross_modal":
            return z2
        parts = [F.normalize(z.float() - mean, dim=-1) for z, mean in zip((z1, z2), self.means, strict=True)]
        return F.normalize(parts[0] + parts[1], dim=-1)

    @torch.no_grad()
    def observe(self, z1: Tensor, z2: Tensor, mask: Tensor, text: Tensor) -> None:
        """Take in one training step: queue and perhaps start, or update.

        Args:
            z1: (n, D) unit sentence vectors of this rank.
            z2: (n, D) unit cross-modal vectors.
            mask: (n,) true for real sentences.
            text: (n,) equal numbers mean equal text.
        """
        self.steps += 1
        self._host_steps += 1
        self._track_means(z1, z2, mask)
        if self._host_started:
            self.update(z1, z2, mask)
            return
        self._enqueue(gather(torch.stack([z1, z2], dim=1).detach().float()), gather(mask), gather(text))
        if self._host_steps % self.settings.check_every == 0 or self._host_steps >= self.settings.start_by_step:
            self._start_if_ready()

    @torch.no_grad()
    def update(self, z1: Tensor, z2: Tensor, mask: Tensor) -> None:
        """Assign (n, D) vectors to their nearest centroids and move those; ranks share sums and counts."""
        vectors = self.members(z1, z2).detach().float()
        found = assign_two(vectors, self.centroids, self.active)
        # A product with the (n, K) membership matrix: unlike a scatter it sums in a fixed order on a GPU too.
        membership = F.one_hot(found.own, self.clusters).float() * mask[:, None]
        counts, sums = total(membership.sum(0)), total(membership.T @ vectors)
        self.centroids.copy_(move_centroids(self.centroids, sums, counts, self.settings.rate, self.update_kind))
        asked = total(membership.T @ z1.detach().float())
        self.queries.copy_(move_centroids(self.queries, asked, counts, self.settings.rate, "mean"))
        # A moving average of about a hundred steps; `watched` is the weight of the steps seen so far, by which it is
        # divided as Adam does with its own.
        self.usage.lerp_(counts / counts.sum().clamp(min=1), _FORGET)
        self.watched.lerp_(torch.ones_like(self.watched), _FORGET)
        if self.settings.reseed:
            fit = found.cosines.gather(1, found.own[:, None])[:, 0].masked_fill(~mask, torch.inf)
            self._reseed(fit, torch.stack([vectors, z1.detach().float()], dim=1))

    def _reseed(self, fit: Tensor, vectors: Tensor) -> None:
        """Move the emptiest centroid, if it is dead, to the sentence that fits its own cluster least: one a step.

        Args:
            fit: (n,) cosine of every sentence to its own centroid.
            vectors: (n, 2, D) what is clustered, and z1.
        """
        poorest, (centroid, query) = worst_fit(fit, vectors)
        emptiest = F.one_hot(self.shares.argmin(), self.clusters).bool()
        moved = emptiest & self.dead & poorest.isfinite()
        self.centroids.copy_(torch.where(moved[:, None], centroid, self.centroids))
        self.queries.copy_(torch.where(moved[:, None], query, self.queries))
        self.active |= moved
        self.usage.copy_(torch.where(moved, self.watched / self.clusters, self.usage))

    def negative_weights(self, rarity: float) -> Tensor:
        """(K,) weights `(1 - share / largest share)^rarity` of centroids as negatives; 0 for dead ones.

        A cluster that fills the corpus, such as a normal statement, is true of most images, so it is a weak negative.
        All are 0 until ten steps of shares were seen.

        Args:
            rarity: 0 for equal weights.
        """
        shares = self.shares
        alive = self.active & ~self.dead & (self.watched > _TEN_STEPS)
        weights: Tensor = (1 - shares / shares.max()).clamp(min=0).pow(rarity) * alive
        return weights

    @property
    def rarity(self) -> Tensor:
        """(K,) inverse shares of the sentences: what two reports share in a rare cluster says more.

        A share counts as at least that of a centroid that is not dead, so the sum over clusters stays bounded.
        """
        return 1 / self.shares.clamp(min=_DEAD / self.clusters)

    def statistics(self) -> dict[str, Tensor]:
        """Tensors for the log: started, share of dead centroids, largest cluster's share, mean cosine."""
        return {
            "bank_started": self.started.float(),
            "bank_dead": self.dead.float().mean(),
            "bank_largest": self.shares.max(),
            "mean_cosine": self.mean_cosine.clone(),  # the buffer goes on moving
        }

    def _track_means(self, z1: Tensor, z2: Tensor, mask: Tensor) -> None:
        # The mean of the whole matrix z1 z2ᵀ is the product of the two sums: no n×n matrix is needed.
        weights = mask.float()[:, None]
        sums = torch.stack([(z1.float() * weights).sum(0), (z2.float() * weights).sum(0)])
        sums, count = total(sums), total(mask.sum())
        self.mean_cosine.copy_(sums[0] @ sums[1] / (count * count).clamp(min=1))
        new = max(_FORGET, 1 / self._host_steps)  # the plain mean of the first hundred steps
        self.means.copy_(torch.where(count > 0, self.means.lerp(sums / count.clamp(min=1), new), self.means))

    def _enqueue(self, vectors: Tensor, mask: Tensor, text: Tensor) -> None:
        """Every text has a place of its own, so that repeats leave room for others; its newest vectors stay."""
        places = newest_places(text, mask, len(self.queue) - 1)
        self.queue[places] = vectors
        self.queue_step[places] = self.steps
        self.queue[-1], self.queue_step[-1:] = 0, 0

    def seeds(self) -> Tensor:
        """Places in the queue of distinct sentences; old ones, of before half of the steps, have moved since."""
        age = self.steps - self.queue_step
        return ((self.queue_step > 0) & (age <= (self.steps // 2).clamp(min=100))).nonzero()[:, 0]

    def _start_if_ready(self) -> None:
        if self._host_steps < self.settings.start_from_step:
            return
        distinct = self.seeds()
        cosine = float(self.mean_cosine)
        forced = cosine > self.settings.start_cosine or len(distinct) < self.clusters
        if forced and self._host_steps < self.settings.start_by_step:
            return
        if len(distinct) < 2:
            if (self._host_steps - self.settings.start_by_step) % 100 == 0:
                logger.warning("cluster bank: only %d distinct sentence(s) so far; not started", len(distinct))
            return
        z1, z2 = self.queue[distinct].unbind(1)
        vectors = self.members(z1, z2)
        generator = torch.Generator().manual_seed(self.seed + self._host_steps)
        chosen = seed_centroids(vectors, min(self.clusters, len(vectors)), self.settings.seeding, generator)
        self.start(vectors[chosen], z1[chosen])
        message = "cluster bank started at step %d: mean cosine %.3f, %d of %d centroids from %d sentences"
        if forced:
            message += " (the step limit was reached: the start conditions were not met)"
        level = logging.WARNING if forced or len(chosen) < self.clusters else logging.INFO
        logger.log(level, message, self._host_steps, cosine, len(chosen), self.clusters, len(distinct))

    @torch.no_grad()
    def start(self, centroids: Tensor, queries: Tensor | None = None) -> None:
        """Begin with these (k, D) unit centroids, k <= K; the others stay unused.

        Args:
            centroids: of the vectors that are clustered.
            queries: (k, D) unit sentence vectors of the same; the centroids themselves by default.
        """
        self.centroids[: len(centroids)] = centroids
        self.queries[: len(centroids)] = centroids if queries is None else queries
        self.active[: len(centroids)] = True
        self.started.fill_(True)
        self._host_started = True


def _mirror_on_host(bank: nn.Module, _: Any) -> None:
    assert isinstance(bank, ClusterBank)
    bank._host_started, bank._host_steps = bool(bank.started), int(bank.steps)
