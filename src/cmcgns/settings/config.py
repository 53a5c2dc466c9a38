"""Every setting, its type, its default and its meaning.

The method's defaults were chosen on synthetic studies (docs/findings.md); a recipe (`recipes/*.yaml`) states what
differs from them.
"""

import json
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator

# Upper bounds lie far above what anybody needs: a typing error shall not fill a disk or a machine's memory.
Count = Annotated[int, Field(ge=0, le=10**9)]
Positive = Annotated[int, Field(gt=0, le=10**9)]
Side = Annotated[int, Field(gt=0, le=4096)]
Width = Annotated[int, Field(gt=0, le=2**14)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Weight = Annotated[float, Field(ge=0, le=1e6)]
Epochs = Annotated[int, Field(ge=0, le=10**5)]
MAX_LOGIT_SCALE = 100.0  # the inverse of the lowest temperature
Temperature = Annotated[float, Field(ge=1 / MAX_LOGIT_SCALE, le=100)]
TextKind = Literal["auto", "sections", "report"]


class Settings(BaseModel):
    """A group of settings; unknown keys, wrong types and numbers that are not finite are refused."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False, use_attribute_docstrings=True
    )

    @field_validator("*", mode="before")
    @classmethod
    def _no_switch_for_a_number(cls, value: Any, info: ValidationInfo) -> Any:
        if isinstance(value, bool) and cls.model_fields[str(info.field_name)].annotation in (int, float):
            raise ValueError("a number is expected")  # else `true` would be 1
        return value


class DataSettings(Settings):
    """Which rows are used, and how a radiograph and a report become tensors."""

    image_size: Side = 224
    """side of the square that the encoder sees, cut out of the stored one"""
    resize: Side = 256
    """long side of the stored image; the rest of the square is black"""
    views: Literal["frontal", "all"] = "frontal"
    """frontal keeps AP, PA and unknown views"""
    train_split: str = "train"
    """value of the table's column `split`"""
    val_split: str | None = "val"
    """null, or where no row has it: `val_fraction` of the training patients is held out"""
    val_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.05
    """share of the training patients that is held out where `val_split` gives no rows"""
    text: TextKind = "auto"
    """findings + impression, or the whole report; auto: sections where a row has them"""
    columns: dict[str, str] = {}
    """our column name: the table's, e.g. {image_path: Path}"""
    images: str | None = None
    """folder where relative image paths start; null: the table's own"""
    separator: str | None = None
    """of a csv table: a mark, or comma, semicolon, tab, bar; null: found out"""
    encoding: str | None = None
    """of a csv table, e.g. cp1252; null: UTF-8, or as its first bytes say"""
    max_tokens: Annotated[int, Field(ge=3, le=8192)] = 256
    """word pieces of a report, [CLS] and [SEP] included"""
    max_sentences: Annotated[int, Field(gt=0, le=1024)] = 24
    """of a report; those after them are cut off, with a count"""
    bad_images: Literal["stop", "leave_out"] = "stop"
    """missing or unreadable images: stop and name them, or leave these rows out"""
    random_crop: bool = True
    """in training; false: the centre, as in evaluation"""
    affine: Annotated[float, Field(ge=0, le=0.5)] = 0.0
    """largest random turn (radians), change of scale and shift (share of the side)"""
    intensity_jitter: Fraction = 0.0
    """relative range of random contrast and brightness"""
    sentence_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """chance of a sentence to be left out of its report in a training step"""
    workers: Annotated[int, Field(ge=0, le=256)] = 0
    """processes that read images beside the training; 0: none"""


class ImageEncoderSettings(Settings):
    """Any timm backbone."""

    name: str = "resnet50"
    """a timm model that gives a grid of patches"""
    channels: Literal[1, 3] = 3
    """3 repeats the gray image; 1 sums the first layer's weights"""
    weights: str | None = None
    """file or folder with another program's weights; null: random start"""
    weights_prefix: str | None = None
    """the keys of the encoder in that file begin so, where it holds several"""
    output_stride: Literal[8, 16, 32] | None = None
    """denser features, where timm can"""
    options: dict[str, Any] = {}
    """more keywords of timm's model, e.g. {drop_path_rate: 0.1}"""


class ReportEncoderSettings(Settings):
    """Any Hugging Face encoder, or a small BERT trained from scratch."""

    name: str = "random"
    """`random` (sizes below, word pieces trained on the reports), a hub name or a local folder"""
    layers: Annotated[int, Field(gt=0, le=256)] = 4
    """of name=random, as the four below"""
    width: Width = 256
    """of its vectors; divisible by heads"""
    heads: Width = 4
    """of its attention"""
    vocabulary: Annotated[int, Field(gt=0, le=10**6)] = 8000
    """most word pieces"""
    dropout: Fraction = 0.1
    """in training"""


class BankSettings(Settings):
    """The cluster bank."""

    clusters: Annotated[int, Field(ge=2, le=10**6)] = 128
    """K"""
    rate: Fraction = 0.05
    """momentum rate of a centroid's update"""
    source: Literal["cross_modal", "text", "centred"] = "centred"
    """what is clustered: cross_modal: z2, what a sentence gathers from its image; text: z1, the sentence;
    centred: the sum of both, each less its mean (with local=query_matched)"""
    reseed: bool = True
    """one a step: the emptiest centroid of those under 5 % of an equal share moves to the sentence farthest
    from its own"""
    seeding: Literal["farthest_point", "kmeans++", "chain"] = "kmeans++"
    """first centroids: kmeans++, farthest_point (from all chosen), or chain (from the last one, as released)"""
    start_cosine: Annotated[float, Field(ge=-1, le=1)] = 0.4
    """start once the mean of cos(z1_i, z2_j) has fallen to this and K distinct sentences wait"""
    start_from_step: Count = 300
    """not before this micro-step: the cosine is small at the very start too, when the cross-modal vectors of
    all sentences are still alike"""
    start_by_step: Positive = 1000
    """start at this micro-step at the latest, and say so"""
    check_every: Positive = 10
    """micro-steps between two looks at the start conditions"""


class ObjectiveSettings(Settings):
    """The losses: every row of an ablation is one of these switches."""

    name: str = "cm-cgns"
    """cm-cgns, or the objective of a rival; of the settings below each reads its own"""
    options: dict[str, Any] = {}
    """settings that another objective has of its own"""
    dim: Width = 768
    """D; divisible by 8 (heads of the sentence pool)"""
    temperature: Temperature = 0.1
    """of the cosines of whole images and reports; learned from here on, but by rivals that hold it fixed"""
    weight_global: Weight = 1.0
    """weight of L_global; 0: it is not computed, as with the others"""
    global_overlap: Fraction = 0.0
    """once the bank has started, another study weighs 1 - this · overlap as a negative of L_global; overlap:
    the share of clusters that both reports have, rare ones counting more"""
    weight_image: Weight = 0.0
    """weight of L_image"""
    weight_report: Weight = 1.0
    """weight of L_report"""
    weight_matching: Weight = 1.0
    """weight of L_match, which compares whole reports by what their sentences see; with local=query_matched, and
    nothing with weight_report 0"""
    weight_reconstruction: Weight = 0.2
    """weight of L_re, in Stage II"""
    sentence_gradient: Fraction = 0.0
    """share of the gradient of the local terms and the reconstruction that reaches the sentence vectors: 1 as
    published; 0 takes them as fixed targets: with own_query hard negatives and mu then only change how
    strongly a sentence pulls and pushes the image's side, because nothing that they could push away learns
    from them"""
    attention: Literal["sigmoid", "softmax"] = "sigmoid"
    """sigmoid as published: every patch has a gate of its own; softmax: the gates sum to 1"""
    patch_positions: bool = True
    """keys of patches have a learned position added, so that a sentence can find a side"""
    unit_values: bool = True
    """values of patches have length 1: a gate that is open where nothing bears the sentence out lowers the score"""
    local: Literal["own_query", "query_matched"] = "query_matched"
    """L_report compares a sentence with what every sentence sees in its own image (as published), or with what
    it sees itself in every image"""
    negatives: Literal["in_batch", "hard", "cluster"] = "in_batch"
    """in_batch: other sentences and images of the batch, no clusters; hard: centroids besides, that of the
    second nearest cluster weighing mu; cluster: and sentences of one cluster are treated as false_negatives
    says"""
    false_negatives: Literal["keep", "margin", "mask", "soft"] = "mask"
    """sentences of one cluster: keep them as negatives; margin as published (with local=own_query); soft: they
    weigh less the more alike they are; mask: leave them out; nothing without negatives=cluster"""
    duplicates: bool = True
    """leave sentences of equal text out of the negatives"""
    tau: Temperature = 0.1
    """temperature of L_report; its start with learn_tau"""
    learn_tau: bool = True
    """false: tau is fixed"""
    matching_tau: Temperature = 0.1
    """temperature of L_match, fixed"""
    matching_temperature: Temperature = 0.2
    """how much the best sentences of a report count for more than the others in L_match"""
    centroid_negatives: bool = True
    """with query_matched: centroids are queries over every image; nothing with negatives=in_batch"""
    rarity: Weight = 1.0
    """with query_matched: centroids weigh (1 - share / largest share)^rarity as negatives; nothing without
    centroid_negatives"""
    mu: Annotated[float, Field(ge=1, le=1e6)] = 3.0
    """weight of negatives of a sentence's second nearest cluster; nothing with negatives=in_batch"""
    alpha: float = 0.2
    """lower end of the margin, false_negatives=margin"""
    beta: float = 0.5
    """upper end of the margin, false_negatives=margin"""
    margin_weight: Weight = 1.0
    """lambda, false_negatives=margin"""
    arithmetic: Literal["described", "released"] = "described"
    """released: as the authors' program computes, of the published form (docs/method.md)"""
    bank: BankSettings = BankSettings()
    reconstruction: Literal["off", "image_only", "cross_modal"] = "cross_modal"
    """what hidden patches are rebuilt from: image_only: the visible ones; cross_modal: the report too; off:
    the second stage goes on with the alignment alone, for its own epochs"""
    mask_ratio: Fraction = 0.5
    """share of the patches that is hidden; one stays visible at least"""
    mask: Literal["features", "pixels", "tokens"] = "features"
    """pixels are painted over in the image, at the price of a second image pass; tokens leaves hidden patches
    out of that pass, which a ViT can"""
    query: Literal["masked", "unmasked"] = "masked"
    """what hidden patches ask the report with: masked: the mask token and their position; unmasked as
    released: f_I itself, which gives away what is to be rebuilt"""
    reconstruct: Literal["hidden", "everywhere"] = "hidden"
    """where the error counts in training"""
    decoder_width: Width = 256
    """channels of the decoder's first block"""
    target: Literal["pixels", "high_frequencies", "features", "text_map"] = "pixels"
    """what is rebuilt: the image, what a blurred one lacks, f_I of the average encoder, or where that encoder
    sees what the report's sentences say"""
    target_scale: Literal[1, 2] = 1
    """side of the rebuilt image in sides of the encoder's input"""
    target_per_patch: bool = False
    """the image to rebuild has mean 0, variance 1 in each patch"""
    target_momentum: Annotated[float, Field(ge=0, lt=1)] = 0.99
    """of the average encoder, a micro-step of Stage II (target=features or text_map)"""
    report_dropout: Fraction = 0.0
    """chance that a study is rebuilt without its report in training"""

    @field_validator("reconstruction", mode="before")
    @classmethod
    def _yaml_off(cls, value: Any) -> Any:
        return "off" if value is False else value  # YAML reads a bare `off` as false


class StageSettings(Settings):
    """One stage: its length and its optimiser."""

    epochs: Epochs = 10
    """0 skips the stage"""
    learning_rate: Annotated[float, Field(gt=0, le=1)] = 1e-4
    """the highest, after the warm-up; then a cosine to 0 at the stage's end"""
    warmup_epochs: Annotated[float, Field(ge=0, le=1e5)] = 1.0
    """of a linear rise from start_learning_rate; a fraction will do"""
    start_learning_rate: Fraction = 1e-7
    """where the rise begins"""
    optimizer: Literal["adam", "adamw"] = "adamw"
    """adamw decays matrices alone; adam has L2 on all parameters"""
    weight_decay: Weight = 1e-2
    """of the optimiser"""


class TrainingSettings(Settings):
    """The loop."""

    batch_size: Annotated[int, Field(gt=0, le=2**16)] = 64
    """studies a rank and micro-step"""
    batches: Literal["shuffled", "near"] = "shuffled"
    """near: pairs of a study and one of the reports that share most sentences with its own"""
    accumulate: Annotated[int, Field(gt=0, le=2**16)] = 1
    """micro-steps an optimiser step; negatives stay within one"""
    clip: Weight = 1.0
    """largest gradient norm; 0 for none"""
    precision: Literal["32-true", "bf16-mixed"] = "32-true"
    """bf16-mixed: encoders in bfloat16, losses in float32"""
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    """of first weights, order, augmentation, masks and held-out patients"""
    log_every: Positive = 10
    """optimiser steps"""
    checkpoint_every: Positive = 500
    """optimiser steps; every epoch's end is a checkpoint too"""
    keep_checkpoints: Positive = 2
    """the newest ones; with 1 nothing replaces a damaged one"""
    recall_limit: Positive = 2000
    """validation studies used for retrieval"""


_REBUILDING = {
    "mask", "mask_ratio", "query", "reconstruct", "target", "target_scale", "target_per_patch", "target_momentum",
    "report_dropout",
}  # fmt: skip
_OF_MARGIN = {"alpha", "beta", "margin_weight"}
_RELEASED: dict[str, Any] = {
    "sentence_gradient": 1.0,
    "tau": 1.0,
    "learn_tau": False,
    "false_negatives": "margin",
    "duplicates": False,
    "local": "own_query",
    "global_overlap": 0.0,
    "rarity": 0.0,
    "patch_positions": False,
    "unit_values": False,
}
_OWN_QUERY: dict[str, Any] = {"rarity": 0.0, "centroid_negatives": True, "weight_matching": 0.0}
_OF_MATCHING = {"matching_tau", "matching_temperature"}


class Recipe(Settings):
    """A whole run."""

    name: str = "default"
    """kept with the run, and in its card"""
    data: DataSettings = DataSettings()
    image_encoder: ImageEncoderSettings = ImageEncoderSettings()
    report_encoder: ReportEncoderSettings = ReportEncoderSettings()
    objective: ObjectiveSettings = ObjectiveSettings()
    alignment: StageSettings = StageSettings(epochs=10)
    reconstruction: StageSettings = StageSettings(epochs=20)
    training: TrainingSettings = TrainingSettings()

    @property
    def rebuilds(self) -> bool:
        """Whether Stage II rebuilds images."""
        objective = self.objective
        weighs = objective.reconstruction != "off" and objective.weight_reconstruction > 0
        return weighs and self.reconstruction.epochs > 0

    @property
    def needs_fine_images(self) -> bool:
        """Whether batches hold the images in twice the side too, because an objective rebuilds them so."""
        replaced = self.objective.name != ObjectiveSettings().name
        return self.objective.target_scale == 2 and (replaced or self.rebuilds)

    @model_validator(mode="after")
    def _fits(self) -> "Recipe":
        if self.data.resize < self.data.image_size:
            raise ValueError(
                f"data.resize ({self.data.resize}) is smaller than data.image_size ({self.data.image_size}): "
                "the crop would not fit"
            )
        if self.objective.dim % 8:
            raise ValueError(f"objective.dim is {self.objective.dim}; it must be divisible by 8")
        if self.report_encoder.width % self.report_encoder.heads:
            raise ValueError("report_encoder.width must be divisible by report_encoder.heads")
        if self.objective.bank.start_from_step > self.objective.bank.start_by_step:
            raise ValueError("objective.bank.start_from_step is larger than objective.bank.start_by_step")
        if not self.objective.weight_global + self.objective.weight_image + self.objective.weight_report:
            raise ValueError("objective: weight_global, weight_image and weight_report are all 0: nothing to align")
        if self.data.train_split == self.data.val_split:
            raise ValueError(
                f"data.train_split and data.val_split are both {self.data.val_split}: validation would see what was "
                "trained on; data.val_split=null holds patients out"
            )
        if not self.alignment.epochs + self.reconstruction.epochs:
            raise ValueError("alignment.epochs and reconstruction.epochs are both 0: nothing to train")
        if self.objective.sentence_gradient == 0 and not self.objective.weight_global:
            raise ValueError(
                "objective.weight_global and objective.sentence_gradient are both 0: "
                "nothing would train the report encoder; set objective.sentence_gradient=1"
            )
        self._fits_released()
        self._fits_local()
        self._fits_overlap()
        self._fits_reconstruction()
        if self.training.batches == "near" and not self.objective.weight_global + self.objective.weight_report:
            raise ValueError(
                "training.batches=near brings hard negatives together, but objective.weight_global and "
                "objective.weight_report are both 0, so there are none: set training.batches=shuffled"
            )
        return self

    def _fits_overlap(self) -> None:
        """Overlap by clusters needs L_global, and a bank, which L_report moves."""
        objective = self.objective
        if not objective.global_overlap:
            return
        for name in ("weight_global", "weight_report"):
            if not getattr(objective, name):
                raise ValueError(f"objective.global_overlap needs objective.{name}, which is 0: leave it 0 too")
        if objective.negatives == "in_batch":
            raise ValueError(
                "objective.global_overlap needs clusters, which objective.negatives=in_batch has none of: set "
                "objective.negatives=cluster (or hard), or leave it 0"
            )

    def _fits_reconstruction(self) -> None:
        """What another switch of the reconstruction makes meaningless."""
        objective, kind = self.objective, self.objective.target
        changed = objective.model_dump(include=_REBUILDING, exclude_defaults=True).keys()
        averaged = kind in ("features", "text_map")
        useless = {
            f"reconstruction={objective.reconstruction}":
                {"off": changed, "image_only": changed & {"query", "report_dropout"}}.get(objective.reconstruction),
            f"target={kind}": changed & ({"target_scale", "target_per_patch"} if averaged else {"target_momentum"}),
        }  # fmt: skip
        for switch, names in useless.items():
            if names:
                raise ValueError(f"objective.{min(names)} has no meaning with objective.{switch}: leave its default")
        if objective.mask != "features" and objective.query == "unmasked":
            raise ValueError(
                f"objective.query=unmasked asks with f_I of the whole image, which mask={objective.mask} hides "
                "from the encoder: set query=masked, or mask=features"
            )
        if kind == "text_map" and not objective.weight_global:
            raise ValueError("objective.target=text_map is made by what L_global trains: set weight_global above 0")
        if kind == "features" and not objective.weight_image + objective.weight_report:
            raise ValueError(
                "objective.target=features: with weight_image and weight_report 0 the reconstruction alone would "
                "train f_I, which could then become the same everywhere: set one of them above 0"
            )

    def _fits_local(self) -> None:
        """What only one form of L_report has."""
        objective = self.objective
        if not objective.weight_matching and (
            changed := objective.model_dump(include=_OF_MATCHING, exclude_defaults=True)
        ):
            raise ValueError(f"objective.{min(changed)} has no meaning with weight_matching 0: leave its default")
        if objective.local == "query_matched":
            if objective.false_negatives == "margin":
                raise ValueError("objective.false_negatives=margin is of local=own_query: set mask, soft or keep")
            if changed := objective.model_dump(include=_OF_MARGIN, exclude_defaults=True):
                raise ValueError(f"objective.{min(changed)} is of local=own_query and its margin: leave its default")
            return
        wrong = _differing(objective, _OWN_QUERY)
        if objective.bank.source == "centred":
            wrong.append("objective.bank.source=cross_modal (or text)")
        if wrong:
            raise ValueError(f"objective.local=own_query has no such switches: set {', '.join(wrong)}")

    def _fits_released(self) -> None:
        """The released arithmetic has no switches; one that is set otherwise would be ignored in silence."""
        if self.objective.arithmetic != "released":
            return
        wrong = _differing(self.objective, _RELEASED)
        if self.objective.bank.source == "centred":
            wrong.append("objective.bank.source=cross_modal (or text)")
        if self.objective.bank.reseed:
            wrong.append("objective.bank.reseed=false")
        if self.objective.bank.seeding == "farthest_point":
            wrong.append("objective.bank.seeding=chain")
        if self.objective.negatives == "hard":
            wrong.append("objective.negatives=cluster (or in_batch)")
        if wrong:
            raise ValueError(f"objective.arithmetic=released has no such switches: set {', '.join(wrong)}")


def _differing(objective: ObjectiveSettings, wanted: dict[str, Any]) -> list[str]:
    """What to set of the objective, as `--set` takes it."""
    return [
        f"objective.{name}={json.dumps(value)}" for name, value in wanted.items() if getattr(objective, name) != value
    ]
