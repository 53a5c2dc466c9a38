"""The CM-CGNS objective: `L = w_g L_global + w_i L_image + w_r L_report + w_m L_match (+ w_re L_re in Stage II)`."""

from collections.abc import Mapping
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cmcgns.data.pairs.batch import Batch
from cmcgns.models.model import Features, ImageReportModel
from cmcgns.objectives import bank_warnings
from cmcgns.objectives.average_encoder import AverageEncoder
from cmcgns.objectives.centroids import Clusters, assign_two
from cmcgns.objectives.cluster_bank import ClusterBank
from cmcgns.objectives.collective import gather, world_size
from cmcgns.objectives.cross_attention import CrossModalAttention
from cmcgns.objectives.global_alignment import LogitScale, global_alignment_loss
from cmcgns.objectives.local_image import Predictor, local_image_loss
from cmcgns.objectives.masked_reconstruction import HEADS, MaskedReconstruction
from cmcgns.objectives.numerics import full_precision
from cmcgns.objectives.objective import Figures, MapKind, Objective, Reader, Stage, register
from cmcgns.objectives.own_query import Sentences, own_query_report
from cmcgns.objectives.query_matched import Matched, Statements, matched_report
from cmcgns.objectives.report_clusters import SentenceClusters, soft_negatives
from cmcgns.objectives.report_comparison import compare_reports, other_reports
from cmcgns.objectives.report_matching import matching_loss
from cmcgns.settings.config import ObjectiveSettings


@register("cm-cgns")
class CMCGNS(Objective):
    """All terms of the method; one of weight 0 is not computed. Arguments as of every objective.

    In eval mode with two different reports `report_swapped` is among the metrics: L_report with other images
    (`own_query`; in the query-matched form `score_own` and `score_other` stand for it); and in Stage II
    `rebuilt_own`, `rebuilt_other`, `rebuilt_none`: the error where hidden, by the report that was given.
    """

    reads = frozenset(ObjectiveSettings.model_fields)
    late_part = "the cluster bank"
    training_only = ("average.", "known.")
    reconstruction: MaskedReconstruction | None
    average: AverageEncoder | None
    known: SentenceClusters | None

    def __init__(self, settings: ObjectiveSettings, grid: tuple[int, int], image_size: int, seed: int = 0) -> None:
        super().__init__(settings, grid, image_size, seed)
        released = settings.arithmetic == "released"
        bank = settings.bank.model_copy(update={"seeding": "chain"}) if released else settings.bank
        self.logit_scale = LogitScale(settings.temperature, learnable=True)
        self.report_scale = LogitScale(1.0 if released else settings.tau, learnable=settings.learn_tau)
        patches = grid[0] * grid[1] if settings.patch_positions else None
        self.attention = CrossModalAttention(settings.dim, settings.attention, patches, settings.unit_values)
        self.predictor = Predictor(settings.dim)
        self.bank = ClusterBank(settings.dim, bank, update="sum" if released else "mean", seed=seed)
        self.reconstruction = None
        if settings.reconstruction != "off":
            self.reconstruction = MaskedReconstruction(settings, grid, image_size)
        self.average = self.known = None

    def attach(self, model: ImageReportModel) -> None:
        """Begin what only training needs: the average encoder, where targets are made by one; clusters by text.

        Raises:
            UserError: `mask: tokens` with an encoder whose patches cannot be left out.
        """
        settings = self.settings
        if self.reconstruction is not None and settings.mask == "tokens":
            model.image_encoder.require_patch_drop("objective.mask")
        if settings.target in HEADS and settings.weight_reconstruction > 0:
            self.average = AverageEncoder(model, HEADS[settings.target], settings.target_momentum)
        if self.uses_bank and self.matched:
            self.known = SentenceClusters()

    def trainable_parts(self, model: ImageReportModel, stage: Stage) -> list[nn.Module]:
        """What a term of the stage reaches."""
        settings, attention = self.settings, self.attention
        rebuilds = self.reconstructs(stage)
        parts: list[nn.Module] = [model.image_encoder, model.report_encoder, model.token_projection]
        if settings.weight_global > 0:
            parts += [model.image_pool, model.image_projection, model.sentence_pool, self.logit_scale]
        if rebuilds or settings.weight_image > 0 or settings.weight_report > 0:
            parts += [model.patch_projection]
        if settings.weight_image > 0:
            parts += [self.predictor]
        if settings.weight_image > 0 or (rebuilds and settings.reconstruction == "cross_modal"):
            parts += [attention.image_query, attention.text_key, attention.text_value]
        if settings.weight_report > 0:
            parts += [attention.text_query, attention.image_key, attention.image_value]
            parts += [attention.positions] if attention.positions is not None else []
            parts += [self.report_scale] if settings.learn_tau else []
        if rebuilds and self.reconstruction is not None:
            parts += [self.reconstruction]
        return parts

    def reconstructs(self, stage: Stage) -> bool:
        """Whether a stage rebuilds images."""
        return (
            stage == "reconstruction" and self.reconstruction is not None and self.settings.weight_reconstruction > 0
        )

    @property
    def uses_bank(self) -> bool:
        """Whether any term asks the cluster bank."""
        return self.settings.weight_report > 0 and self.settings.negatives != "in_batch"

    @property
    def matched(self) -> bool:
        """Whether every sentence looks at every image with its own query."""
        return self.settings.local == "query_matched"

    @property
    def is_started(self) -> bool:
        """Whether the cluster bank has started."""
        return self.bank.is_started

    @property
    def cluster_shares(self) -> Tensor | None:
        """(K,) of the bank that a term asks."""
        return self.bank.known_shares if self.uses_bank else None

    @classmethod
    def contrasts(cls, settings: ObjectiveSettings) -> bool:
        """Whether L_global is on, or sentences look at all images."""
        matched = settings.local == "query_matched" and settings.weight_report > 0
        return settings.weight_global > 0 or matched

    @classmethod
    def starts(cls, settings: ObjectiveSettings) -> dict[str, tuple[str, float]]:
        """Temperatures of whole images and reports, and of sentences."""
        return super().starts(settings) | {"report_scale": ("objective.tau", settings.tau)}

    def kept_from(self, before: ObjectiveSettings) -> dict[str, str]:
        """The bank too: half of its buffers would make no sense."""
        return {"bank": "it starts anew"} | super().kept_from(before)

    @property
    def reader(self) -> Reader:
        """The attention of sentences on patches."""
        return self.attention

    @property
    def local_temperature(self) -> float:
        """Of L_report."""
        return self.report_scale.temperature

    def lacks_map(self, kind: MapKind) -> str:
        """That the weight of the loss behind it is 0, or that `own_query` compares no sentence with every image."""
        if kind == "joint":
            return self.lacks_map("gated") or self.lacks_map("pooled")
        if kind == "gated" and not self.matched:
            return f"the run has objective.local {self.settings.local}"
        weight = "weight_global" if kind == "pooled" else "weight_report"
        return f"the run has objective.{weight} 0" if getattr(self.settings, weight) == 0 else ""

    def queries(self, sentences: Tensor) -> Tensor:
        """Sentence embeddings f_R (..., D) as they look at an image: unit vectors z1 in the query-matched form."""
        return F.normalize(sentences.float(), dim=-1) if self.matched else sentences

    def assigned_by(self, z1: Tensor, z2: Tensor) -> Tensor:
        """What L_report compares with the centroids to find a sentence's clusters.

        As published that is the sentence itself, whatever the bank clusters; query-matched it is what the bank does.

        Args:
            z1: (n, D) unit sentence vectors.
            z2: (n, D) unit cross-modal vectors.

        Returns:
            (n, D) unit vectors.
        """
        return self.bank.members(z1, z2) if self.matched else z1

    def warning_before(self, micro_steps: int) -> str | None:
        """That nothing will force the bank to start."""
        return bank_warnings.starts_too_late(self.bank, micro_steps) if self.uses_bank else None

    def warning(self, metrics: Mapping[str, float]) -> str | None:
        """What is wrong with the bank."""
        return bank_warnings.unhealthy(self.bank, metrics) if "bank_started" in metrics else None

    def warning_after(self) -> str | None:
        """That the bank never started."""
        return bank_warnings.never_started(self.bank) if self.uses_bank else None

    def forward(self, model: ImageReportModel, batch: Batch, seed: int) -> tuple[Figures, Figures]:
        """Losses and metrics of a batch; in training also move the bank."""
        settings, features = self.settings, model(batch)
        # f_R is also what the report pool takes. Pushed apart by L_report, where synonyms are negatives of each
        # other, it serves L_global worse (docs/results.md has the figures).
        local = replace(features, sentences=share_gradient(features.sentences, settings.sentence_gradient))
        terms: Figures = {}
        metrics: Figures = {"temperature": 1 / self.logit_scale().detach()}
        if settings.weight_global > 0:
            terms["global"], of_global = self._global(features, batch)
            metrics |= of_global
        if settings.weight_image > 0:
            attended, _ = self.attention.text_to_image(local.patches, local.sentences, batch.sentence_mask)
            terms["image"] = local_image_loss(local.patches, attended, self.predictor)
        if settings.weight_report > 0:
            of_report, figures = self._local_report(local, batch)
            terms |= of_report
            metrics |= figures
        if self.reconstructs(self.stage):
            terms["reconstruction"] = self._reconstruction(model, local, batch, seed)
            metrics |= {} if self.training else self._rebuilt_with(model, local, batch)
        loss = torch.stack([getattr(settings, f"weight_{name}") * term for name, term in terms.items()]).sum()
        return {"loss": loss} | terms, metrics

    @torch.no_grad()
    def assign(self, features: Features, batch: Batch) -> tuple[Tensor, Clusters]:
        """What L_report compares with the centroids, (B·M, D) of the flattened sentences, and what it finds.

        Args:
            features: of the batch.
            batch: B studies of M padded sentences.
        """
        if self.matched and self.settings.bank.source != "text":
            rows = self.sentences(features, features.patches, batch)
            vectors = self.assigned_by(rows.z1, rows.z2)
        else:  # what it sees in its image does not matter
            vectors = F.normalize(features.sentences.flatten(0, 1).float(), dim=-1)
        with full_precision(vectors):
            return vectors, assign_two(vectors, self.bank.centroids, self.bank.active)

    def clusters_of(self, features: Features, batch: Batch) -> tuple[Tensor, Tensor] | None:
        """(B, M) nearest, and second nearest, centroid of every sentence, as L_report takes them."""
        if not (self.uses_bank and self.bank.is_started):
            return None
        _, found = self.assign(features, batch)
        shape = batch.sentence_mask.shape
        return found.own.view(shape), found.hard.view(shape)

    def _global(self, features: Features, batch: Batch) -> tuple[Tensor, Figures]:
        """L_global; in training with `global_overlap` by the clusters as they are before this step.

        In evaluation every negative weighs the same: `global` compares epochs from before and after the bank's start.
        """
        figures: Figures = {}
        strength, weights = self.settings.global_overlap, None
        clusters = self.clusters_of(features, batch) if strength > 0 else None
        with full_precision(features.image_global):
            if clusters is not None:
                found, mean = soft_negatives(clusters[0], batch.sentence_mask, self.bank.rarity, strength)
                weights, figures = found if self.training else None, {"report_overlap": mean}
            loss = global_alignment_loss(features.image_global, features.report_global, self.logit_scale(), weights)
        return loss, figures

    def own_query_loss(self, rows: Sentences, use_bank: bool = True) -> tuple[Tensor, Tensor]:
        """L_report as published, of flattened sentences, and its margin part (0 where there is none).

        Args:
            rows: the sentences of this rank.
            use_bank: false for in-batch negatives only, as before the bank has started.
        """
        clusters = None
        if use_bank and self.uses_bank and self.bank.is_started:
            clusters = assign_two(rows.z1, self.bank.centroids, self.bank.active)
        return own_query_report(self.settings, rows, clusters, self.report_scale())

    def _local_report(self, features: Features, batch: Batch) -> tuple[Figures, Figures]:
        """L_report and L_match, and their metrics."""
        rows = self.sentences(features, features.patches, batch)
        with full_precision(rows.z1):
            use_bank = self.uses_bank and self.bank.is_started  # the step that seeds the bank does not use it yet
            if self.training and self.uses_bank:
                self.bank.observe(rows.z1, rows.z2, rows.mask, rows.text)
            figures = {"tau": 1 / self.report_scale().detach()}
            if self.matched:
                matched = self._matched_report(features.patches, rows, batch, use_bank)
                terms = {"report": matched.loss}
                if self.settings.weight_matching > 0:
                    terms["matching"] = matching_loss(self.settings, matched, len(batch) * world_size())
                figures |= matched.scores
            else:
                loss, margin = self.own_query_loss(rows, use_bank)
                terms = {"report": loss}
                if self.settings.negatives == "cluster" and self.settings.false_negatives == "margin":
                    figures["margin"] = margin.detach()
            if self.uses_bank:
                figures |= self.bank.statistics()
        if not self.training and not self.matched:
            figures |= self._swapped_report(features, batch)
        return terms, figures

    def _matched_report(self, patches: Tensor, rows: Sentences, batch: Batch, use_bank: bool) -> Matched:
        places = batch.sentence_places
        statements = Statements.of(rows.z1, batch.sentence_mask, batch.sentence_text, places)
        bank = self.bank if use_bank else None
        if bank is not None:
            vectors = self.assigned_by(rows.z1, rows.z2)
            vectors = vectors if places is None else vectors[places]
            statements = statements.assigned(vectors, bank.centroids, bank.active)
        not_shown = None
        if bank is not None and self.known is not None and self.training:
            self.known.keep(*(gather(each) for each in (statements.text, statements.own, statements.mask)))
            not_shown = self.known.of_left_out(batch.report_sentences, batch.sentence_text, bank.clusters)
        return matched_report(
            self.settings, bank, self.reader, patches.float(), statements, batch.report_sentences,
            self.report_scale(), not_shown,
        )  # fmt: skip

    def _swapped_report(self, features: Features, batch: Batch) -> Figures:
        """L_report with the image of another study, whose report differs, in evaluation.

        L_report can be solved without the image, because a sentence shapes its own attention weights. With another
        image it should get clearly worse; a small difference means the shortcut. Nothing where all reports are equal.
        """
        partner, found = other_reports(batch.report_text)
        if not bool(found.any()):
            return {}
        rows = self.sentences(features, features.patches[partner], batch)
        rows = replace(rows, mask=(batch.sentence_mask & found[:, None]).flatten())
        with full_precision(rows.z1):
            return {"report_swapped": self.own_query_loss(rows)[0].detach()}

    def sentences(self, features: Features, patches: Tensor, batch: Batch) -> Sentences:
        """Those of a batch, flattened, and what they see in images of which (B, P, D) patches are given."""
        queries = self.queries(features.sentences)
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.matched):  # then only the bank asks for z2
            attended, _ = self.attention.image_to_text(patches, queries, batch.sentence_mask)
        return Sentences.of(features.sentences, attended, batch.sentence_mask, batch.sentence_text)

    def _reconstruction(self, model: ImageReportModel, features: Features, batch: Batch, seed: int) -> Tensor:
        assert self.reconstruction is not None
        hidden = self.reconstruction.draw(len(batch), seed, batch.images.device)
        patches = features.patches
        if self.training:  # else nothing is hidden
            patches = self.reconstruction.seen_patches(model, patches, batch.images, hidden)
            if self.average is not None:
                self.average.update(model)
        mask = self.reconstruction.drop_reports(batch.sentence_mask, seed)
        rebuilt = self.reconstruction.reconstruct(patches, hidden, features.sentences, mask, self.attention)
        return self.reconstruction(rebuilt, self.target(model, features, batch), hidden)  # type: ignore[no-any-return]

    def target(self, model: ImageReportModel, features: Features, batch: Batch) -> Tensor:
        """What whole images are to be rebuilt as; of a finished run its encoder stands for the average."""
        assert self.reconstruction is not None
        net = model if self.average is None else self.average.net
        return self.reconstruction.target(net, model, batch, features.sentences)

    def _rebuilt_with(self, model: ImageReportModel, features: Features, batch: Batch) -> Figures:
        """Mean error in hidden regions by report, of studies with another report in the batch."""
        partner, found = other_reports(batch.report_text)
        if self.reconstruction is None or not self.reconstruction.cross_modal or not bool(found.any()):
            return {}
        target = self.target(model, features, batch)
        other = features.sentences[partner], batch.sentence_mask[partner]
        generator = torch.Generator(batch.images.device).manual_seed(0)  # always the same regions
        sums, counts = compare_reports(
            self.reconstruction, self.attention, model, features, batch, target, other, generator
        )
        means = (sums / counts.clamp(min=1))[:, found].mean(1)
        return dict(zip(("rebuilt_own", "rebuilt_other", "rebuilt_none"), means, strict=True))


def share_gradient(tensor: Tensor, share: float) -> Tensor:
    """The same values; only a share of the gradient goes on to what they were made from."""
    if share == 1:
        return tensor
    fixed = tensor.detach()
    return fixed if share == 0 else fixed + share * (tensor - fixed)
