"""The contract of an objective, and the registry that finds one by `objective.name`."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Literal, Protocol

import torch.nn.functional as F
from torch import Tensor, nn

from cmcgns.common.errors import UserError, did_you_mean
from cmcgns.common.registry import Registry
from cmcgns.data.pairs.batch import Batch
from cmcgns.models.model import Features, ImageReportModel
from cmcgns.objectives.global_alignment import LogitScale
from cmcgns.settings.config import ObjectiveSettings, Recipe, Settings
from cmcgns.settings.recipe import describe_settings
from cmcgns.settings.yaml import validated

Stage = Literal["alignment", "reconstruction"]
STAGES: tuple[Stage, ...] = ("alignment", "reconstruction")
Figures = dict[str, Tensor]
MapKind = Literal["pooled", "patches", "attention", "gated", "joint"]
"""Ways to say where in the image a phrase belongs (:mod:`cmcgns.objectives.phrase_maps`)."""

By = Literal["global", "local", "sum"]
"""Ways to score an image and a text: by global embeddings, by what a sentence sees in the image, or both."""


class Reader(Protocol):
    """What lets single sentences look at images: patches (B, P, D) f_I, queries (N, D) unit vectors."""

    def score(self, patches: Tensor, queries: Tensor) -> Tensor:
        """(B, N) cosines of every sentence with what it sees in every image."""

    def weights(self, patches: Tensor, queries: Tensor) -> Tensor:
        """(B, P, N) what of its look each sentence gives to each patch."""

    def gated_products(self, patches: Tensor, queries: Tensor) -> Tensor:
        """(B, P, N) what each patch adds to the score, before it is divided by a length."""


class Objective(nn.Module, ABC):
    """What a model is trained for: a batch goes in, losses come out.

    A rival is one file in this folder, or in a folder below it; nothing else has to know it:

        @register("global-contrast")
        class GlobalContrast(Objective):
            def forward(self, model, batch, seed):
                features = model(batch)
                loss = global_alignment_loss(features.image_global, features.report_global, 10.0)
                return {"loss": loss, "global": loss}, {}

            def trainable_parts(self, model, stage):
                return [model]

    The contract:

    - It is built with `objective` of the recipe, the grid (h, w) of the patch tokens, the side of the square image
      in pixels and the seed of the run, and called as `losses, metrics = objective(model, batch, seed)`, on every
      rank with the rank's own batch and the same seed.
    - `losses` are scalars: `loss`, the weighted sum that is back-propagated, and every unweighted term of it. Their
      gradient is that of the loss over all ranks (`collective.py`). `global` ranks the epochs of Stage I.
    - `metrics` are detached scalars for the log, under other names. In eval mode there may be more of them.
    - All state lives in parameters and buffers, so that weights and checkpoints hold it. In eval mode none of it
      moves, nothing is random, and every rank may be alone (`collective.local_only`).
    - Everything random in training follows from `seed` and from torch's own generators, which are seeded as well.
    - In training nothing is read back from the device, and shapes depend on the padded bounds of a batch alone.

    Attributes:
        Options: settings of its own, `objective.options` of the recipe; none by default.
        reads: which other settings of `objective` it reads; one that it does not read must keep its default.
        late_part: what of it starts only after some steps, such as "the cluster bank"; empty for nothing.
        training_only: beginnings of the names of state that only training needs; weights of a finished run lack it.
        stage: the current one; changed between steps only, by whoever freezes what it does not train.
        options: the checked `Options`.

    Raises:
        UserError: options that it does not have.
    """

    Options: ClassVar[type[Settings]] = Settings
    reads: ClassVar[frozenset[str]] = frozenset({"dim", "temperature"})
    late_part: ClassVar[str] = ""
    training_only: ClassVar[tuple[str, ...]] = ()
    stage: Stage = "alignment"

    def __init__(self, settings: ObjectiveSettings, grid: tuple[int, int], image_size: int, seed: int = 0) -> None:  # noqa: ARG002
        super().__init__()
        self.settings, self.options = settings, self.check_options(settings)

    @classmethod
    def check_options(cls, settings: ObjectiveSettings) -> Settings:
        """The objective's own settings.

        Raises:
            UserError: unknown keys or wrong types; a setting that it would ignore.
        """
        chosen = settings.model_dump(exclude_defaults=True)
        if ignored := [f"objective.{name}" for name in chosen if name in cls.unread()]:
            raise UserError(
                f"objective.name={settings.name} does not read {', '.join(ignored)}: leave the default "
                "(RECIPE+rival-NAME takes an objective into a recipe, without what it does not read)"
            )
        return validated(cls.Options, settings.options, f"objective.options of {settings.name}")

    @classmethod
    def unread(cls) -> frozenset[str]:
        """The settings of `objective` that count for nothing."""
        return frozenset(ObjectiveSettings.model_fields) - cls.reads - {"name", "options"}

    @abstractmethod
    def forward(self, model: ImageReportModel, batch: Batch, seed: int) -> tuple[Figures, Figures]:
        """Losses and metrics of a batch."""

    @abstractmethod
    def trainable_parts(self, model: ImageReportModel, stage: Stage) -> Iterable[nn.Module]:
        """Parts of the model and of itself that a stage trains; everything else is frozen by :func:`train_only`."""

    def attach(self, model: ImageReportModel) -> None:
        """Make state out of the model's parts; called once, where both are built to be trained.

        Raises:
            UserError: a model that the settings do not fit.
        """

    @classmethod
    def contrasts(cls, settings: ObjectiveSettings) -> bool:  # noqa: ARG003
        """Whether images are told apart from the other reports of a batch, which then needs at least two studies."""
        return True

    @classmethod
    def starts(cls, settings: ObjectiveSettings) -> dict[str, tuple[str, float]]:
        """What its scalars start at, by attribute: the key of the recipe, and the value."""
        return {"logit_scale": ("objective.temperature", settings.temperature)}

    def kept_from(self, before: ObjectiveSettings) -> dict[str, str]:
        """Parts of it, by attribute, that a run which starts from another run's weights does not take, and why.

        By default the scalars of :meth:`starts` that both have, where the settings change or do not learn them.

        Args:
            before: settings of the other run.
        """
        theirs, own = find_objective(before).starts(before), {}
        for name, (key, now) in self.starts(self.settings).items():
            part = getattr(self, name, None)
            if part is None or name not in theirs:
                continue
            if now != (there := theirs[name][1]):
                own[name] = f"{key} is {now:g}, there {there:g}"
            elif isinstance(part, LogitScale) and not part.learnable:
                own[name] = f"{key} is {now:g} and not learned"
        return own

    def clusters_of(self, features: Features, batch: Batch) -> tuple[Tensor, Tensor] | None:  # noqa: ARG002
        """(B, M) nearest, and second nearest, centroid of every sentence, padding included; None without clusters.

        Args:
            features: what the model gave of the batch.
            batch: B studies of M padded sentences.
        """
        return None

    @property
    def reader(self) -> Reader | None:
        """What lets sentences look at images; None where no loss trains it."""
        return None

    def queries(self, sentences: Tensor) -> Tensor:
        """Sentence embeddings f_R (..., D) as they look at an image: unit vectors."""
        return F.normalize(sentences.float(), dim=-1)

    def lacks_map(self, kind: MapKind) -> str:
        """Why there is no such map of phrases: no loss trains it; empty if there is."""
        return "" if kind == "pooled" else f"the run has objective.name {self.settings.name}"

    def lacks_score(self, by: By) -> str:
        """Why images and sentences cannot be scored so: no loss trains it; empty if they can."""
        if by != "local" and (reason := self.lacks_map("pooled")):
            return f"{reason}: its global embeddings mean nothing"
        if by != "global" and (reason := self.lacks_map("gated")):
            return f"{reason}, and only a loss that has every sentence look at every image trains a local score"
        return ""

    def clamp_logit_scale(self) -> None:
        """Bring its logit scales back below their bound; called after every step of the optimiser."""
        for part in self.children():
            if isinstance(part, LogitScale):
                part.clamp()

    @property
    def temperature(self) -> float:
        """That divides the cosines of images and reports; where it is learned, as it is now."""
        return self.settings.temperature if self._scale is None else self._scale.temperature

    @property
    def _scale(self) -> LogitScale | None:
        scale = getattr(self, "logit_scale", None)
        return scale if isinstance(scale, LogitScale) else None

    @property
    def local_temperature(self) -> float:
        """That divides the local scores of images and sentences."""
        return self.temperature

    @property
    def is_started(self) -> bool:
        """Whether `late_part` has started; known on the host."""
        return True

    @property
    def cluster_shares(self) -> Tensor | None:
        """(K,) shares of the sentences that each cluster has held lately; None where that is not known (yet)."""
        return None

    def warning_before(self, micro_steps: int) -> str | None:  # noqa: ARG002
        """What a person should hear before a run of so many micro-steps."""
        return None

    def warning(self, metrics: Mapping[str, float]) -> str | None:  # noqa: ARG002
        """What a person should hear about the metrics of a validation."""
        return None

    def warning_after(self) -> str | None:
        """What a person should hear at the end of a run."""
        return None


_OBJECTIVES: Registry[Objective] = Registry(str(__package__))
register = _OBJECTIVES.register  # `objective.name` finds the class by this name


def find_objective(settings: ObjectiveSettings) -> type[Objective]:
    """The class that `objective.name` names, after a look at its settings.

    Raises:
        UserError: no such objective, with the nearest right name; or settings that it does not have.
    """
    known = _OBJECTIVES.load()
    if settings.name not in known:
        hint = did_you_mean(settings.name, known) or f" There are {', '.join(known)}."
        raise UserError(f"objective.name: there is no objective {settings.name}.{hint}")
    found = known[settings.name]
    found.check_options(settings)
    return found


def describe_read(recipe: Recipe) -> str:
    """Every setting that a recipe's objective reads, and all others of it, with their meaning; a recipe in YAML.

    Raises:
        UserError: as of :func:`find_objective`.
    """
    kind = find_objective(recipe.objective)
    hidden = {f"objective.{name}" for name in kind.unread()}
    return describe_settings(recipe, hidden, {"objective.options": kind.check_options(recipe.objective)})


def read_settings(recipe: Recipe) -> dict[str, Any]:
    """A recipe as it is kept: of its objective every option, and nothing that it does not read.

    So what keeps it follows no default that changes, neither of what counts nor of what does not.

    Raises:
        UserError: as of :func:`find_objective`.
    """
    content = with_options(recipe).model_dump(mode="json")
    return content | {"objective": without_unread(content["objective"])}


def without_unread(objective: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of `objective`, unchecked, less those that the objective which they name does not read."""
    kind = _OBJECTIVES.load().get(str(objective.get("name")))
    unread = kind.unread() if kind else frozenset[str]()
    return {name: value for name, value in objective.items() if name not in unread}


def with_options(recipe: Recipe) -> Recipe:
    """A recipe with every option of its objective stated, so that what keeps it follows no default that changes.

    Raises:
        UserError: as of :func:`find_objective`.
    """
    settings = recipe.objective
    options = find_objective(settings).check_options(settings).model_dump(mode="json")
    return recipe.model_copy(update={"objective": settings.model_copy(update={"options": options})})
