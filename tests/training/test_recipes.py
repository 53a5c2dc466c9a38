"""Every shipped recipe, in every precision, through a whole run with validation, interruption and resume.

Only sizes are made small; the switches of the objective, the stages' optimisers and the sharing out of data are the
recipe's own.
"""

import math
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from transformers import BertConfig, BertModel

import cmcgns
from cmcgns.common.errors import UserError
from cmcgns.data.reports.tokenizer import train_tokenizer
from cmcgns.objectives.objective import find_objective
from cmcgns.settings.config import Recipe, TrainingSettings
from cmcgns.settings.recipe import list_recipes, load_recipe
from cmcgns.training import loop
from cmcgns.training.dry_run import dry_run
from cmcgns.training.journal import read_metrics
from support.training import BATCH, STEPS, assert_same_end, run, tiny_recipe

PRECISIONS = get_args(TrainingSettings.model_fields["precision"].annotation)
SMALL = {
    "data.image_size": 64, "data.resize": 72, "data.max_tokens": 61, "data.max_sentences": 12, "data.workers": 0,
    "image_encoder.options": "{channels: [8, 16, 24, 32], stem_width: 8}",
    "report_encoder.layers": 1, "report_encoder.width": 32, "report_encoder.heads": 2,
    "report_encoder.vocabulary": 300, "objective.dim": 32, "objective.decoder_width": 16,
    "objective.bank.clusters": 6, "objective.bank.start_from_step": 0, "objective.bank.start_by_step": 4,
    "alignment.epochs": 2, "reconstruction.epochs": 1,
    "training.batch_size": BATCH, "training.checkpoint_every": 4, "training.log_every": 3,
}  # fmt: skip


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a BERT and its tokenizer, where a recipe names one of the hub."""
    folder = tmp_path_factory.mktemp("bert")
    torch.manual_seed(0)
    tokenizer = train_tokenizer(["No effusion.", "Large right pneumothorax.", "The heart is enlarged."], 200)
    tokenizer.save_pretrained(str(folder))
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    BertModel(BertConfig(vocab_size=len(tokenizer), max_position_embeddings=64, **sizes)).save_pretrained(str(folder))
    return folder


def small(name: str, bert: Path, precision: str) -> Recipe:
    whole = load_recipe(name)
    # Its own switches by name: sizes of a part that is off are refused otherwise.
    switches = {f"objective.{key}": getattr(whole.objective, key) for key in ("negatives", "reconstruction")}
    changes: dict[str, Any] = SMALL | switches | {"training.precision": precision}
    reads = find_objective(whole.objective).reads
    groups = {key: key.split(".") for key in changes}
    changes = {
        key: changes[key] for key, (first, *rest) in groups.items() if first != "objective" or rest[0] in reads
    }
    if whole.report_encoder.name != "random":
        changes["report_encoder.name"] = bert
    return load_recipe(name, [f"{key}={value}" for key, value in changes.items()])


class Stopped(Exception):
    """The power was cut."""


def stop_at(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    step, count = loop.training_step, iter(range(1000))

    def stopping(*args: Any, **options: Any) -> Any:
        if next(count) == number:
            raise Stopped
        return step(*args, **options)

    monkeypatch.setattr(loop, "training_step", stopping)


def assert_whole_and_resumable(recipe: Recipe, data: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Dry run, whole run, stopped and resumed run, and the run in use."""
    dry_run(recipe, data, "cpu", steps=1)
    whole = run(data, folder / "whole", recipe)
    records = [
        record for record in read_metrics(whole / "metrics.jsonl") if record["kind"] in ("train", "validation")
    ]
    validations = [(record["stage"], record["epoch"]) for record in records if record["kind"] == "validation"]
    assert validations == [("alignment", 1), ("alignment", 2), ("reconstruction", 1)]
    assert all(math.isfinite(record["loss"]) for record in records)
    out = folder / "stopped"
    with monkeypatch.context() as patch:
        stop_at(2 * STEPS + 5, patch)
        with pytest.raises(Stopped):
            run(data, out, recipe)
    run(data, out, recipe, resume=True)
    assert_same_end(whole, out)
    in_use = cmcgns.load(whole)
    if recipe.objective.name == "mrm":  # which has no space that images and reports share
        with pytest.raises(UserError, match="its global embeddings mean nothing"):
            in_use.embed_text(["No effusion."])
    else:
        assert in_use.embed_text(["No effusion."]).shape == (1, 32)


@pytest.mark.slow
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("name", list_recipes())
def test_shipped_recipes_train_validate_and_resume(
    name: str, precision: str, bert: Path, studies: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert_whole_and_resumable(small(name, bert, precision), studies, tmp_path, monkeypatch)


@pytest.mark.parametrize("precision", sorted(set(PRECISIONS) - {"32-true"}))
def test_mixed_precision_trains_through_both_stages_and_resumes(
    precision: str, studies: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = tiny_recipe(training__precision=precision)
    assert_whole_and_resumable(recipe, studies, tmp_path, monkeypatch)
