"""L_report, query-matched: every sentence looks at every image of the batch with its own query.

As published, a sentence is compared with vectors that *other* sentences have attended, each with a query of its own,
so the loss can be solved by the sentences alone. Here all competitors of a logit share its query (sentence -> images)
or its image (image -> sentences): what tells them apart is what the image shows.
"""

import math
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from cmcgns.objectives.centroids import assign_two
from cmcgns.objectives.cluster_bank import ClusterBank
from cmcgns.objectives.collective import gather, own_numbers, own_rows, sum_over_ranks, total
from cmcgns.objectives.numerics import NOTHING
from cmcgns.objectives.objective import Reader
from cmcgns.objectives.report_clusters import LEAST_WEIGHT, cluster_membership
from cmcgns.settings.config import ObjectiveSettings


@dataclass(frozen=True)
class Statements:
    """The N sentences of a batch, padded to n rows, and the image that each belongs to.

    Attributes:
        z1: (n, D) unit sentence vectors.
        image: (n,) row of the own image in the batch.
        mask: (n,) true for real sentences.
        text: (n,) equal numbers mean equal normalised text.
        own: (n,) nearest centroid; 0 without a bank.
        hard: (n,) second nearest centroid.
    """

    z1: Tensor
    image: Tensor
    mask: Tensor
    text: Tensor
    own: Tensor
    hard: Tensor

    @classmethod
    def of(cls, z1: Tensor, mask: Tensor, text: Tensor, places: Tensor | None = None) -> "Statements":
        """Without clusters.

        Args:
            z1: (B·M, D) unit vectors.
            mask: (B, M).
            text: (B, M).
            places: (n,) of the flattened sentences that are taken: all real ones, and little padding; None for all.
        """
        places = torch.arange(mask.numel(), device=mask.device) if places is None else places
        none = torch.zeros_like(places)
        return cls(z1[places], places // mask.shape[1], mask.flatten()[places], text.flatten()[places], none, none)

    def assigned(self, vectors: Tensor, centroids: Tensor, active: Tensor) -> "Statements":
        """With the nearest centroids of (n, D) unit vectors."""
        found = assign_two(vectors.detach(), centroids, active)
        return replace(self, own=found.own, hard=found.hard)

    def of_all_ranks(self, studies: int) -> "Statements":
        """Those of all ranks, in rank order; images count through.

        Args:
            studies: B of every rank.
        """
        image = gather(own_numbers(studies, self.image.device)[self.image])
        kept = (gather(each) for each in (self.mask, self.text, self.own, self.hard))
        return Statements(gather(self.z1), image, *kept)


@dataclass(frozen=True)
class Stated:
    """What the reports of this rank's B images say of the N sentences of all ranks.

    Attributes:
        own: (B, N) the sentence stands in the image's own report, as it was shown.
        text: (B, N) the image's whole report holds equal text.
        cluster: (B, N) a sentence of the image lies in the sentence's cluster.
        hard: (B, N) a sentence of the image lies in the sentence's second nearest cluster.
        holds: (B, K) clusters that the image's sentences belong to, those not shown too; None without a bank.
    """

    own: Tensor
    text: Tensor
    cluster: Tensor
    hard: Tensor
    holds: Tensor | None

    @classmethod
    def of(
        cls,
        rows: Statements,
        everyone: Statements,
        reports: Tensor,
        clusters: int | None,
        not_shown: Tensor | None = None,
    ) -> "Stated":
        """Compare.

        Args:
            rows: sentences of this rank.
            everyone: of all ranks.
            reports: (B, M) texts of the whole reports of this rank, before any sentence was dropped; 0 for padding.
            clusters: K; None without a bank.
            not_shown: (B, K) clusters of sentences that the reports do not show.
        """
        studies = len(reports)
        here = own_numbers(studies, reports.device)
        own = (here[:, None] == everyone.image) & everyone.mask
        text = torch.zeros_like(own)
        for place in range(reports.shape[1]):  # a (B, N, M) array would be the largest of the step
            text |= reports[:, place, None] == everyone.text
        text &= everyone.mask
        if clusters is None:
            nothing = torch.zeros_like(own)
            return cls(own, text, nothing, nothing, None)
        holds = cluster_membership(rows.own, rows.image, rows.mask, studies, clusters)
        holds = holds if not_shown is None else holds | not_shown
        cluster, hard = (holds[:, each] & everyone.mask for each in (everyone.own, everyone.hard))
        return cls(own, text, cluster, hard, holds)

    def mean_scores(self, cosines: Tensor, everyone: Statements) -> dict[str, Tensor]:
        """`score_own`, `score_other`: mean (B, N) cosine of a sentence with its own image, and with images whose
        reports do not state it."""
        shown, others = cosines.detach(), everyone.mask & ~self.own & ~self.text
        return {
            name: total((shown * of).sum()) / total(of.sum()).clamp(min=1)
            for name, of in (("score_own", self.own), ("score_other", others))
        }


def likeness(
    rows: Statements, everyone: Statements, studies: int, queries: Tensor, not_shown: Tensor | None = None
) -> Tensor:
    """(B, N) largest cosine of every sentence with those of an image that share its cluster; 0 without one.

    Of sentences that are not shown only the cluster is known: its query (K, D), the mean of its members, stands for
    them. The other arguments as of :meth:`Stated.of`.
    """
    cosines = rows.z1.detach() @ everyone.z1.detach().T
    shared = (rows.own[:, None] == everyone.own) & rows.mask[:, None]
    best = cosines.new_zeros(studies, cosines.shape[1])
    place = rows.image[:, None].expand_as(cosines)
    best = best.scatter_reduce(0, place, torch.where(shared, cosines, 0), "amax")
    if not_shown is None:
        return best
    typical = (everyone.z1.detach() * queries[everyone.own]).sum(-1)
    return torch.maximum(best, not_shown[:, everyone.own] * typical)


def query_matched_contrast(
    scores: Tensor,
    rows: Statements,
    everyone: Statements,
    *,
    left_out: Tensor,
    towards_images: Tensor,
    towards_sentences: Tensor,
    centroids: "CentroidQueries | None" = None,
) -> Tensor:
    """Both directions of the contrast.

    Sentence -> images: cross-entropy of `s(n, ·)/τ` against the own image b(n). Image -> sentences:
    `softplus(L_nb - s(n, b)/τ)` with `L_nb = log Σ_n' exp(s(n', b)/τ)` over the sentences n' that b does not state,
    and the centroids that none of its sentences belongs to.

    Args:
        scores: (B, N) s/τ of this rank's images with the sentences of all ranks.
        rows: sentences of this rank.
        everyone: of all ranks.
        left_out: (B, N) stated by the image, so no negatives; the own ones among them.
        towards_images: (B, N) logarithms of weights of images among the negatives of a sentence.
        towards_sentences: (B, N) logarithms of weights of sentences among the negatives of an image.
        centroids: as further negatives of every image.

    Returns:
        Mean of both directions over the N real sentences of all ranks; where nothing is left to compare with, 0.
    """
    count, studies = len(rows.mask), len(scores)
    mine, own_image = own_rows(count), own_numbers(studies, rows.image.device)[rows.image]
    # Patches never travel: every rank scores all sentences on its own images, and the scores are put together.
    images = gather(scores + towards_images)[:, mine].T
    no_rival = gather(left_out)[:, mine].T & ~F.one_hot(own_image, images.shape[1]).bool()
    chosen = torch.where(rows.mask, own_image, -100)
    to_images = F.cross_entropy(images.masked_fill(no_rival, NOTHING), chosen, ignore_index=-100, reduction="sum")
    rivals = (scores + towards_sentences).masked_fill(left_out | ~everyone.mask, NOTHING)
    negatives = centroids.negatives(rivals.logsumexp(1), rows) if centroids else rivals.logsumexp(1)[rows.image]
    own_score = scores[:, mine].gather(0, rows.image[None])[0]
    to_sentences = (F.softplus(negatives - own_score) * rows.mask).sum()
    return sum_over_ranks((to_images + to_sentences) / (2 * total(rows.mask.sum()).clamp(min=1)))


@dataclass(frozen=True)
class CentroidQueries:
    """Centroids that look at this rank's images as if they were sentences.

    Attributes:
        scores: (B, K) s/τ of the centroids plus the logarithms of their weights.
        usable: (B, K) no sentence of the image belongs to the centroid, and its weight is above 0.
        mu: weight of a sentence's own hard negative.
    """

    scores: Tensor
    usable: Tensor
    mu: float

    def negatives(self, in_batch: Tensor, rows: Statements) -> Tensor:
        """(n,) logarithm of the sum of the negatives of every sentence's image; the own hard centroid counts μ times.

        Args:
            in_batch: (B,) the same over the sentences of the batch.
            rows: sentences of this rank.
        """
        logits = self.scores.masked_fill(~self.usable, NOTHING)
        every = torch.logaddexp(in_batch, logits.logsumexp(1))[rows.image]
        if self.mu == 1:
            return every
        more = logits[rows.image, rows.hard] + math.log(self.mu - 1)
        return torch.logaddexp(every, more)


@dataclass(frozen=True)
class Matched:
    """What came of every sentence looking at every image.

    Attributes:
        loss: L_report.
        cosines: (B, N) s of this rank's images with the sentences of all ranks.
        everyone: those sentences.
        scores: figures of :meth:`Stated.mean_scores`.
    """

    loss: Tensor
    cosines: Tensor
    everyone: Statements
    scores: dict[str, Tensor]


def matched_report(
    settings: ObjectiveSettings,
    bank: ClusterBank | None,
    reader: Reader,
    patches: Tensor,
    rows: Statements,
    reports: Tensor,
    logit_scale: Tensor,
    not_shown: Tensor | None = None,
) -> Matched:
    """L_report as the settings say.

    Args:
        settings: which sentences and images are no negatives, or weaker or stronger ones.
        bank: that has started, else None.
        reader: gives the scores.
        patches: (B, P, D) f_I.
        rows: sentences of this rank, assigned to clusters if there is a bank.
        reports: (B, M) texts of the whole reports; 0 for padding.
        logit_scale: 1/τ.
        not_shown: (B, K) clusters of sentences that the reports have and do not show; None for none.
    """
    studies = len(patches)
    everyone = rows.of_all_ranks(studies)
    asks = bank is not None and settings.centroid_negatives
    queries = torch.cat([everyone.z1, bank.queries]) if asks and bank else everyone.z1
    cosines = reader.score(patches, queries)  # of both at once: keys, values and their products are the same
    cosines, of_centroids = cosines.tensor_split([len(everyone.z1)], dim=1)
    scores = cosines * logit_scale
    stated = Stated.of(rows, everyone, reports, bank.clusters if bank else None, not_shown)
    left_out, towards_images, towards_sentences = _competitors(settings, bank, rows, everyone, stated, not_shown)
    centroids = None
    if asks and bank is not None and stated.holds is not None:
        kept = bank.negative_weights(settings.rarity)
        weighed = of_centroids * logit_scale + kept.clamp(min=1e-12).log()
        centroids = CentroidQueries(weighed, ~stated.holds & (kept > 0), settings.mu)
    loss = query_matched_contrast(
        scores, rows, everyone, left_out=left_out, towards_images=towards_images,
        towards_sentences=towards_sentences, centroids=centroids,
    )  # fmt: skip
    return Matched(loss, cosines, everyone, stated.mean_scores(cosines, everyone))


def _competitors(
    settings: ObjectiveSettings,
    bank: ClusterBank | None,
    rows: Statements,
    everyone: Statements,
    stated: Stated,
    not_shown: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """(B, N) pairs left out, and logarithms of the weights of images and of sentences among the negatives."""
    left_out = stated.own | stated.text if settings.duplicates else stated.own
    weights = torch.zeros(left_out.shape, device=left_out.device)
    treated = settings.false_negatives if bank and settings.negatives == "cluster" else "keep"
    false = stated.cluster & ~left_out if treated != "keep" else torch.zeros_like(left_out)
    if treated == "mask":
        left_out = left_out | false
    elif treated == "soft" and bank is not None:
        alike = likeness(rows, everyone, len(left_out), bank.queries, not_shown)
        weights = torch.where(false, (1 - alike).clamp(LEAST_WEIGHT, 1).log(), 0.0)
    return left_out, torch.where(stated.hard & ~left_out & ~false, math.log(settings.mu), weights), weights
