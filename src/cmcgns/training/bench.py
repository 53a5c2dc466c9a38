"""`cmcgns bench step`: what a whole training step costs beside its encoders alone, on random data."""

import platform
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from itertools import repeat
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import nn

from cmcgns.common.errors import UserError, one_line
from cmcgns.data.pairs.batch import Batch
from cmcgns.models.model import ImageReportModel
from cmcgns.models.report_encoder import SCRATCH
from cmcgns.objectives.cmcgns import CMCGNS
from cmcgns.objectives.objective import Figures, Objective, Stage
from cmcgns.settings.config import ObjectiveSettings, Recipe
from cmcgns.training.launch import launch, peak_memory
from cmcgns.training.step import build_optimizer, training_step
from cmcgns.training.task import PretrainingTask, build_task

ReportConfig = Literal["bert-base"]
_FIRST_WORD = 5  # behind the special word pieces


def random_task(recipe: Recipe, report_config: ReportConfig | None = None) -> PretrainingTask:
    """Model and objective at random, in train mode, with a bank that has started."""
    config: dict[str, Any] | None = None
    if report_config == "bert-base":
        from transformers import BertConfig

        config = BertConfig().to_dict()
    scratch = config is None and recipe.report_encoder.name == SCRATCH
    task = build_task(recipe, recipe.report_encoder.vocabulary if scratch else 1, config, load_weights=False)
    if isinstance(task.objective, CMCGNS):
        task.objective.bank.start(F.normalize(torch.randn_like(task.objective.bank.centroids), dim=-1))
    return task.train()


def random_batch(recipe: Recipe, studies: int, vocabulary: int) -> Batch:
    """Studies of the recipe's shapes: every place for a word piece and, as far as these go, a sentence is taken."""
    data = recipe.data
    words = data.max_tokens - 2
    sentences = min(data.max_sentences, words)
    owner = torch.full((data.max_tokens,), -1)
    owner[1:-1] = torch.arange(words) * sentences // words
    mask = (torch.arange(data.max_sentences) < sentences).expand(studies, -1)
    text = torch.arange(1, 1 + studies * data.max_sentences).view(studies, -1)
    fine = recipe.needs_fine_images
    return Batch(
        images=torch.rand(studies, 1, data.image_size, data.image_size) * 2 - 1,
        fine_images=torch.rand(studies, 1, 2 * data.image_size, 2 * data.image_size) * 2 - 1 if fine else None,
        token_ids=torch.randint(min(_FIRST_WORD, vocabulary - 1), vocabulary, (studies, data.max_tokens)),
        token_mask=torch.ones(studies, data.max_tokens, dtype=torch.bool),
        token_sentence=owner.expand(studies, -1).contiguous(),
        sentence_mask=mask.contiguous(),
        sentence_text=torch.where(mask, text, 0),
        report_text=torch.arange(1, 1 + studies),
        report_sentences=torch.where(mask, text, 0),
        study_ids=tuple(f"random-{number}" for number in range(studies)),
    )


@dataclass(frozen=True)
class StepFigures:
    """One measurement.

    Attributes:
        device: name of the GPU or CPU.
        precision: of the recipe.
        torch: version.
        stage: whose step was timed.
        batch_size: pairs an optimiser step.
        image_size, max_tokens, max_sentences: the padded bounds, all of them filled.
        steps: how many were timed; times are medians.
        whole_seconds, encoders_seconds: of a step.
        whole_pairs_per_second, encoders_pairs_per_second: throughput.
        ratio: whole step over encoders only.
        beyond_encoders: share of the whole step that is not the encoders.
        whole_memory_mib, encoders_memory_mib: peak of the GPU's allocator, or of the process on a CPU.
        host_synchronisation: the operation of a step for which the host waits for the GPU, "none", or
            "not measured" on a CPU.
    """

    device: str
    precision: str
    torch: str
    stage: Stage
    batch_size: int
    image_size: int
    max_tokens: int
    max_sentences: int
    steps: int
    whole_seconds: float
    encoders_seconds: float
    whole_pairs_per_second: float
    encoders_pairs_per_second: float
    ratio: float
    beyond_encoders: float
    whole_memory_mib: float
    encoders_memory_mib: float
    host_synchronisation: str


class EncodersOnly(Objective):
    """A trivial loss on the tokens of both encoders: the floor of any step that trains them."""

    def forward(self, model: ImageReportModel, batch: Batch, seed: int) -> tuple[Figures, Figures]:  # noqa: ARG002
        """A scalar that every used parameter of the encoders has a part in."""
        image = model.image_encoder.tokens(batch.images).mean(1)
        report = model.report_encoder(batch.token_ids, batch.token_mask).mean(1)
        return {"loss": image.float().square().mean() + report.float().square().mean()}, {}

    def trainable_parts(self, model: ImageReportModel, stage: Stage) -> list[nn.Module]:  # noqa: ARG002
        """The encoders alone."""
        return [model.image_encoder, model.report_encoder]


def encoders_task(task: PretrainingTask, recipe: Recipe) -> PretrainingTask:
    """The encoders of a task, without its projections and pools, and their trivial loss."""
    encoders = nn.Module()
    encoders.image_encoder, encoders.report_encoder = task.model.image_encoder, task.model.report_encoder
    objective = EncodersOnly(ObjectiveSettings(), task.model.image_encoder.grid, recipe.data.image_size)
    alone = PretrainingTask(encoders, objective)  # type: ignore[arg-type]
    alone.set_stage(task.objective.stage)
    return alone


def bench_step(
    recipe: Recipe,
    *,
    device: str = "auto",
    batch_size: int | None = None,
    steps: int = 10,
    stage: Stage | None = None,
    report_config: ReportConfig | None = None,
) -> StepFigures:
    """Time the whole training step and an encoders-only step of the same recipe, one after the other.

    The bank has started, every sentence and word piece of the padded bounds is there, and no data are loaded.

    Args:
        recipe: the settings.
        device: auto, cpu or cuda.
        batch_size: studies of a micro-step; None takes the recipe's.
        steps: how many to time, after a warm-up.
        stage: None takes reconstruction if the recipe has epochs of it.
        report_config: build the report encoder at random from a well-known configuration, whatever its name says.
    """
    fabric = launch(recipe, 1, 1, device)
    torch.manual_seed(recipe.training.seed)
    task = random_task(recipe, report_config)
    stage = stage or ("reconstruction" if recipe.reconstruction.epochs else "alignment")
    task.set_stage(stage)
    task.to(fabric.device)  # the encoders are measured alone first
    studies = batch_size or recipe.training.batch_size
    if studies < 2:
        raise UserError("training.batch_size is 1: a step needs at least 2 studies; set it, or give --batch")
    batch = random_batch(recipe, studies, task.model.report_encoder.config["vocab_size"]).to(fabric.device)
    encoders, _ = _measure(fabric, encoders_task(task, recipe), recipe, batch, steps)
    whole, waits = _measure(fabric, task, recipe, batch, steps)
    return StepFigures(
        device=device_name(fabric.device),
        precision=recipe.training.precision,
        torch=torch.__version__,
        stage=stage,
        batch_size=studies * recipe.training.accumulate,
        image_size=recipe.data.image_size,
        max_tokens=recipe.data.max_tokens,
        max_sentences=recipe.data.max_sentences,
        steps=steps,
        **{f"whole_{name}": value for name, value in whole.items()},
        **{f"encoders_{name}": value for name, value in encoders.items()},
        ratio=whole["seconds"] / encoders["seconds"],
        beyond_encoders=1 - encoders["seconds"] / whole["seconds"],
        host_synchronisation=waits,
    )


def describe_figures(figures: StepFigures) -> str:
    """The measurement as lines for people."""
    return "\n".join(
        f"{name.replace('_', ' '):<28}" + (f"{value:,.3f}" if isinstance(value, float) else str(value))
        for name, value in asdict(figures).items()
    )


def device_name(device: torch.device) -> str:
    """What a reader knows the device by."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type != "cpu":
        return device.type
    return f"{platform.processor() or platform.machine()} CPU, {torch.get_num_threads()} threads"


def _measure(
    fabric: Any, task: PretrainingTask, recipe: Recipe, batch: Batch, steps: int
) -> tuple[dict[str, Any], str]:
    """What a step takes, and what in it waits for the device."""
    cuda = fabric.device.type == "cuda"
    if cuda:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(fabric.device)
    step = optimizer_step(fabric, task, recipe, repeat(batch))
    seconds = statistics.median(time_steps(step, fabric.device, steps, warm_up=3))
    speed = len(batch) * recipe.training.accumulate / seconds
    figures = {"seconds": seconds, "pairs_per_second": speed, "memory_mib": peak_memory(fabric.device)}
    return figures, _host_synchronisation(step) if cuda else "not measured"


def optimizer_step(
    fabric: Any, task: PretrainingTask, recipe: Recipe, batches: Iterator[Batch]
) -> Callable[[], None]:
    """A step of the optimiser in the task's stage, to be timed; taking its batches belongs to it."""
    module, optimizer = fabric.setup(task, build_optimizer(task, getattr(recipe, task.objective.stage)))
    task.train()

    def step() -> None:
        group = [next(batches).to(fabric.device) for _ in range(recipe.training.accumulate)]
        training_step(fabric, module, task, optimizer, group, seed=0, clip=recipe.training.clip)

    return step


def time_steps(step: Callable[[], None], device: torch.device, steps: int, warm_up: int) -> list[float]:
    """Seconds of every step after some that warm up; a GPU has finished when the clock is read."""
    seconds = []
    for _ in range(warm_up + steps):
        start = time.perf_counter()
        step()
        if device.type != "cpu":
            torch.accelerator.synchronize(device)
        seconds.append(time.perf_counter() - start)
    return seconds[warm_up:]


def _host_synchronisation(step: Callable[[], None]) -> str:
    """What a step waits for on the host, or "none"."""
    torch.cuda.set_sync_debug_mode("error")
    try:
        step()
    except RuntimeError as error:
        return one_line(error)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return "none"
