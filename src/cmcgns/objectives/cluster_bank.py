"""The cluster bank: K unit centroids of sentence vectors, kept in buffers (ClusterNS, Deng et al. 2023)."""

import logging
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cmcgns.objectives.centroids import Update, assign_two, move_centroids, seed_centroids
from cmcgns.objectives.collective import gather, total
from cmcgns.settings.config import BankSettings

logger = logging.getLogger(__name__)

_FORGET = 0.01  # of the moving average of cluster shares
_TEN_STEPS = 1 - (1 - _FORGET) ** 9.5
_MANY_DEAD, _GIANT = 0.5, 0.5  # shares of centroids, and of sentences, that are worth a warning


class ClusterBank(nn.Module):
    """Centroids that start once sentences have spread out, and then follow every training step.

    All state lives in buffers: it is saved, loaded and moved with the weights, and never reaches an
    optimiser. After the start a step reads nothing back to the host; before it, only every `check_every` steps.

    Args:
        dim: width D.
        settings: number of centroids K, momentum rate, start conditions. Until the attention has learned something,
            the cross-modal vectors of all sentences are alike, and centroids seeded among them die.
        update: `mean` (the method) or `sum` (released).
        queue_size: sentences kept for seeding; K by default times four.
        seed: of the random first choice.
    """

    centroids: Tensor
    active: Tensor
    started: Tensor
    steps: Tensor
    mean_cosine: Tensor
    queue: Tensor
    queue_text: Tensor
    queued: Tensor
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
        size = queue_size or 4 * clusters
        self.register_buffer("centroids", torch.zeros(clusters, dim))
        self.register_buffer("active", torch.zeros(clusters, dtype=torch.bool))
        self.register_buffer("started", torch.tensor(False))
        self.register_buffer("steps", torch.tensor(0))
        self.register_buffer("mean_cosine", torch.tensor(1.0))
        # One row more than the queue holds: the place where padding is written to.
        self.register_buffer("queue", torch.zeros(size + 1, dim))
        self.register_buffer("queue_text", torch.zeros(size + 1, dtype=torch.long))
        self.register_buffer("queued", torch.tensor(0))
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

    @torch.no_grad()
    def observe(self, z1: Tensor, z2: Tensor, members: Tensor, mask: Tensor, text: Tensor) -> None:
        """Take in one training step: queue and perhaps start, or update.

        Args:
            z1: (n, D) unit sentence vectors of this rank.
            z2: (n, D) unit cross-modal vectors.
            members: (n, D) whichever of the two the bank clusters.
            mask: (n,) true for real sentences.
            text: (n,) equal numbers mean equal text.
        """
        self.steps += 1
        self._host_steps += 1
        self._track_mean_cosine(z1, z2, mask)
        if self._host_started:
            self.update(members, mask)
            return
        self._enqueue(gather(members.detach().float()), gather(mask), gather(text))
        if self._host_steps % self.settings.check_every == 0 or self._host_steps >= self.settings.start_by_step:
            self._start_if_ready()

    @torch.no_grad()
    def update(self, vectors: Tensor, mask: Tensor) -> None:
        """Assign (n, D) unit vectors to their nearest centroids and move those; ranks share sums and counts."""
        vectors = vectors.detach().float()
        _, own, _ = assign_two(vectors, self.centroids, self.active)
        # A product with the (n, K) membership matrix: unlike a scatter it sums in a fixed order on a GPU too.
        membership = F.one_hot(own, self.clusters).float() * mask[:, None]
        counts, sums = total(membership.sum(0)), total(membership.T @ vectors)
        self.centroids.copy_(move_centroids(self.centroids, sums, counts, self.settings.rate, self.update_kind))
        # A moving average of about a hundred steps; `watched` is the weight of the steps seen so far, by which it is
        # divided as Adam does with its own.
        self.usage.lerp_(counts / counts.sum().clamp(min=1), _FORGET)
        self.watched.lerp_(torch.ones_like(self.watched), _FORGET)

    def statistics(self) -> dict[str, Tensor]:
        """Tensors for the log: started, share of dead centroids, largest cluster's share, mean cosine."""
        shares = self.shares
        alive = shares > 0.05 / self.clusters
        return {
            "bank_started": self.started.float(),
            "bank_dead": 1 - alive.float().mean(),
            "bank_largest": shares.max(),
            "mean_cosine": self.mean_cosine,
        }

    def warning(self, metrics: Mapping[str, float]) -> str | None:
        """That the bank waits, has mostly dead centroids, or one giant cluster; None if all is well."""
        if not self.is_started:
            late = int(self.steps) >= self.settings.start_from_step
            return f"the cluster bank has not started: {self._waits_for()}" if late else None
        found = []
        if metrics["bank_dead"] > _MANY_DEAD:
            found.append(f"{metrics['bank_dead']:.0%} of the centroids have no members")
        if metrics["bank_largest"] > _GIANT:
            found.append(f"one cluster holds {metrics['bank_largest']:.0%} of the sentences")
        return f"cluster bank: {', '.join(found)}" if found else None

    def starts_too_late(self, micro_steps: int) -> str | None:
        """A warning when the latest start lies beyond the run's micro-steps, so that nothing forces it."""
        last = self.settings.start_by_step
        if self.is_started or last <= micro_steps:
            return None
        return (
            f"objective.bank.start_by_step is {last}, but the run has {micro_steps} micro-steps: the cluster "
            "bank starts only if its conditions are met before "
            f"(objective.bank.start_from_step is {self.settings.start_from_step})"
        )

    def never_started(self) -> str | None:
        """What to say at the end of a run whose bank has not started; None if it has."""
        if self.is_started:
            return None
        return (
            f"the cluster bank never started, L_report had in-batch negatives only: {self._waits_for()}; it has seen "
            f"{int(self.steps)} steps since the weights it came with, objective.bank.start_from_step is "
            f"{self.settings.start_from_step}, start_by_step {self.settings.start_by_step}"
        )

    def _waits_for(self) -> str:
        """The start conditions that are not met; they are looked at every few steps only."""
        reasons, distinct = [], len(self._newest_of_each_text())
        if float(self.mean_cosine) > self.settings.start_cosine:
            reasons.append(f"mean cosine {float(self.mean_cosine):.3f}, limit {self.settings.start_cosine:g}")
        if distinct < self.clusters:
            reasons.append(f"{distinct} distinct sentences, objective.bank.clusters is {self.clusters}")
        if int(self.steps) < self.settings.start_from_step:
            reasons.append(f"step {int(self.steps)}, not before {self.settings.start_from_step}")
        return ", ".join(reasons) or "its conditions were met after the last look at them"

    def _track_mean_cosine(self, z1: Tensor, z2: Tensor, mask: Tensor) -> None:
        # The mean of the whole matrix z1 z2ᵀ is the product of the two sums: no n×n matrix is needed.
        weights = mask.float()[:, None]
        sums = torch.stack([(z1.float() * weights).sum(0), (z2.float() * weights).sum(0)])
        sums, count = total(sums), total(mask.sum())
        self.mean_cosine.copy_(sums[0] @ sums[1] / (count * count).clamp(min=1))

    def _enqueue(self, vectors: Tensor, mask: Tensor, text: Tensor) -> None:
        size = len(self.queue) - 1
        order = mask.long().cumsum(0) - 1
        count = mask.sum()
        # Only the newest `size` sentences are written, each to a slot of its own; the rest go to the spare row.
        written = mask & (order >= count - size)
        slots = torch.where(written, (self.queued + order) % size, size)
        self.queue[slots] = vectors
        self.queue_text[slots] = text
        self.queue[size], self.queue_text[size] = 0, 0
        self.queued += count

    def _newest_of_each_text(self) -> Tensor:
        # Verbatim repeats must not take all the centroids.
        rows = min(int(self.queued), len(self.queue) - 1)
        age = (torch.arange(rows) - int(self.queued)) % (len(self.queue) - 1)  # the ring's oldest slot first
        return _last_of_each(self.queue_text[:rows].cpu(), age)

    def _start_if_ready(self) -> None:
        if self._host_steps < self.settings.start_from_step:
            return
        distinct = self._newest_of_each_text()
        cosine = float(self.mean_cosine)
        forced = cosine > self.settings.start_cosine or len(distinct) < self.clusters
        if forced and self._host_steps < self.settings.start_by_step:
            return
        if len(distinct) < 2:
            if (self._host_steps - self.settings.start_by_step) % 100 == 0:
                logger.warning("cluster bank: only %d distinct sentence(s) so far; not started", len(distinct))
            return
        vectors = self.queue[distinct.to(self.queue.device)]
        generator = torch.Generator().manual_seed(self.seed + self._host_steps)
        chosen = seed_centroids(vectors, min(self.clusters, len(vectors)), self.settings.seeding, generator)
        self.start(vectors[chosen])
        message = "cluster bank started at step %d: mean cosine %.3f, %d of %d centroids from %d sentences"
        if forced:
            message += " (the step limit was reached: the start conditions were not met)"
        level = logging.WARNING if forced or len(chosen) < self.clusters else logging.INFO
        logger.log(level, message, self._host_steps, cosine, len(chosen), self.clusters, len(distinct))

    @torch.no_grad()
    def start(self, centroids: Tensor) -> None:
        """Begin with these (k, D) unit centroids, k <= K; the others stay unused."""
        self.centroids[: len(centroids)] = centroids
        self.active[: len(centroids)] = True
        self.started.fill_(True)
        self._host_started = True


def _last_of_each(text: Tensor, order: Tensor) -> Tensor:
    """Index of every distinct number's occurrence that is last in the order, ascending."""
    by_order = order.argsort()
    _, inverse = text[by_order].unique(return_inverse=True)
    last = torch.full((int(inverse.max()) + 1 if len(text) else 0,), -1)
    return by_order[last.scatter_reduce(0, inverse, torch.arange(len(text)), "amax")].sort().values


def _mirror_on_host(bank: nn.Module, _: Any) -> None:
    assert isinstance(bank, ClusterBank)
    bank._host_started, bank._host_steps = bool(bank.started), int(bank.steps)
