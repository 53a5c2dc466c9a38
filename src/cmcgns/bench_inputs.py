"""A task and a batch at random, for measuring steps without data."""

from typing import Any, Literal

import torch
import torch.nn.functional as F

from cmcgns.config import Recipe
from cmcgns.data.batch import Batch
from cmcgns.models.report_encoder import SCRATCH
from cmcgns.objectives.cluster_bank import ClusterBank
from cmcgns.task import Task, build_task

ReportConfig = Literal["bert-base"]
_FIRST_WORD = 5  # behind the special word pieces


def random_task(recipe: Recipe, report_config: ReportConfig | None = None) -> Task:
    """Model and objective at random, in train mode, with a bank that has started."""
    config: dict[str, Any] | None = None
    if report_config == "bert-base":
        from transformers import BertConfig

        config = BertConfig().to_dict()
    scratch = config is None and recipe.report_encoder.name == SCRATCH
    task = build_task(recipe, recipe.report_encoder.vocabulary if scratch else 1, config, load_weights=False)
    _start_bank(task.objective.bank)
    return task.train()


def random_batch(recipe: Recipe, studies: int, vocabulary: int) -> Batch:
    """Studies of the recipe's shapes: every place for a word piece and, as far as these go, a sentence is taken.

    Args:
        recipe: image size and bounds of reports.
        studies: B.
        vocabulary: size of the tokenizer.
    """
    data = recipe.data
    words = data.max_tokens - 2
    sentences = min(data.max_sentences, words)
    owner = torch.full((data.max_tokens,), -1)
    owner[1:-1] = torch.arange(words) * sentences // words
    mask = (torch.arange(data.max_sentences) < sentences).expand(studies, -1)
    text = torch.arange(1, 1 + studies * data.max_sentences).view(studies, -1)
    return Batch(
        images=torch.rand(studies, 1, data.image_size, data.image_size) * 2 - 1,
        token_ids=torch.randint(min(_FIRST_WORD, vocabulary - 1), vocabulary, (studies, data.max_tokens)),
        token_mask=torch.ones(studies, data.max_tokens, dtype=torch.bool),
        token_sentence=owner.expand(studies, -1).contiguous(),
        sentence_mask=mask.contiguous(),
        sentence_text=torch.where(mask, text, 0),
        report_text=torch.arange(1, 1 + studies),
        study_ids=tuple(f"random-{number}" for number in range(studies)),
    ).check()


def _start_bank(bank: ClusterBank) -> None:
    centroids = F.normalize(torch.randn_like(bank.centroids), dim=-1)
    started = {"centroids": centroids, "active": torch.ones_like(bank.active), "started": torch.tensor(True)}
    bank.load_state_dict(bank.state_dict() | started)
