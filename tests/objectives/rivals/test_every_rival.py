"""What holds of every rival: ranks, padding, empty reports, one study, both stages, the log."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from cmcgns.common.errors import UserError
from cmcgns.data.pairs.batch import Batch
from cmcgns.objectives import rivals
from cmcgns.objectives.collective import world_size
from cmcgns.objectives.global_alignment import LogitScale
from cmcgns.objectives.objective import STAGES, find_objective, register
from cmcgns.objectives.rivals.rival import Rival
from cmcgns.settings.config import (
    DataSettings,
    ImageEncoderSettings,
    ObjectiveSettings,
    Recipe,
    ReportEncoderSettings,
)
from cmcgns.training.task import PretrainingTask, build_task
from objectives.test_collective import assert_equal, gradients, two_ranks
from support.objectives import part, random_batch, random_features

RIVALS = sorted(
    path.stem for path in Path(str(rivals.__file__)).parent.glob("*.py") if path.stem not in {"__init__", "rival"}
)
COUNTS, BOUND = (5, 4, 3, 1, 0, 2), 5
Found = dict[str, Tensor]


def rival_task(name: str, for_training: bool = True, **options: object) -> PretrainingTask:
    """Tiny encoders without BatchNorm and dropout, for images of 32 pixels (a 2×2 grid)."""
    recipe = Recipe(
        data=DataSettings(image_size=32, resize=32, max_tokens=32),
        image_encoder=ImageEncoderSettings(name="test_vit", channels=1),
        report_encoder=ReportEncoderSettings(layers=1, width=16, heads=2, dropout=0.0),
        objective=ObjectiveSettings(name=name, dim=16, options=options),
    )
    torch.manual_seed(0)
    return build_task(recipe, vocabulary=40, for_training=for_training)


@pytest.mark.parametrize("name", RIVALS)
def test_the_name_of_the_file_is_that_of_the_objective(name: str) -> None:
    assert find_objective(ObjectiveSettings(name=name)).__module__ == f"cmcgns.objectives.rivals.{name}"


def run_rivals(rows: slice) -> dict[str, Found]:
    found = {}
    for name in RIVALS:
        task = rival_task(name)
        for stage in STAGES:
            task.set_stage(stage)
            module = DistributedDataParallel(task) if world_size() > 1 else task
            for step in range(2):
                whole = random_batch(COUNTS, BOUND, distinct=12, seed=step, size=32)
                whole = replace(whole, report_text=torch.tensor([0, 1, 2, 3, 4, 1]))  # equal ones on two ranks
                batch, _ = part(whole, random_features(whole), rows)
                losses, metrics = module(batch, step)
                assert not losses.keys() & metrics.keys()
                assert not any(value.requires_grad for value in metrics.values())
                (losses["loss"] * world_size()).backward()  # as the training loop does
                values = {key: value.detach().clone() for key, value in (losses | metrics).items()}
                buffers = {f"buffer {key}": value.clone() for key, value in task.objective.named_buffers()}
                found[f"{name} {stage} {step}"] = values | gradients(task) | buffers
    return found


def test_two_ranks_equal_one_in_value_gradient_and_state(tmp_path: Path) -> None:
    alone = run_rivals(slice(0, 6))
    for found in two_ranks(run_rivals, tmp_path):
        for where, expected in alone.items():
            assert any(key.startswith("gradient model.image_encoder") for key in expected)
            assert_equal(found[where], expected, where)


@pytest.mark.parametrize("name", RIVALS)
def test_every_trainable_parameter_has_a_finite_gradient(name: str) -> None:
    """Else DistributedDataParallel waits for ever for those that have none."""
    for stage in STAGES:
        task = rival_task(name)
        task.set_stage(stage)
        task(random_batch((3, 4, 2), BOUND, size=32), 0)[0]["loss"].backward()
        for key, parameter in task.named_parameters():
            assert (parameter.grad is not None) == parameter.requires_grad, (stage, key)
            assert parameter.grad is None or bool(parameter.grad.isfinite().all()), (stage, key)


@pytest.mark.parametrize("name", RIVALS)
def test_whatever_a_loss_reads_is_trained(name: str) -> None:
    """A loss of patches whose projection stays as it was drawn would learn beside it, and nothing would say so."""
    for stage in STAGES:
        task = rival_task(name)
        task.set_stage(stage)
        trained = {key for key, parameter in task.named_parameters() if parameter.requires_grad}
        task.requires_grad_(True)
        task(random_batch((3, 4, 2), BOUND, size=32), 0)[0]["loss"].backward()
        read = {key for key, parameter in task.named_parameters() if parameter.grad is not None}
        assert read == trained, stage


@pytest.mark.parametrize("name", RIVALS)
@pytest.mark.parametrize("training", [True, False])
def test_padding_changes_nothing(name: str, training: bool) -> None:
    both = []
    for bound in (BOUND, BOUND + 3):
        task = rival_task(name).train(training)
        wide = random_batch((3, 5, 2, 4), BOUND, size=32)
        if bound > BOUND:
            wide = padded(wide, 3)
        losses, _ = task(wide, 0)
        losses["loss"].backward()
        both.append({key: value.detach() for key, value in losses.items()} | gradients(task))
    assert_equal(both[1], both[0], name)


def padded(batch: Batch, more: int) -> Batch:
    """More room for sentences and word pieces, and nothing in it."""
    grown = {"sentence_mask": (more, False), "sentence_text": (more, 0), "report_sentences": (more, 0)}
    grown |= {"token_ids": (2 * more, 0), "token_mask": (2 * more, False), "token_sentence": (2 * more, -1)}
    changes = {name: F.pad(getattr(batch, name), (0, room), value=value) for name, (room, value) in grown.items()}
    return replace(batch, **changes)


@pytest.mark.parametrize("name", RIVALS)
@pytest.mark.parametrize("counts", [(3,), (0,), (0, 0), (1, 0), (2, 2)])
def test_few_studies_and_empty_reports_give_finite_losses_and_gradients(name: str, counts: tuple[int, ...]) -> None:
    task = rival_task(name)
    losses, metrics = task(random_batch(counts, BOUND, size=32), 0)
    losses["loss"].backward()
    for key, value in (losses | metrics | gradients(task)).items():
        assert bool(value.isfinite().all()), key


@pytest.mark.parametrize("name", RIVALS)
def test_evaluation_is_repeatable_and_moves_nothing(name: str) -> None:
    task = rival_task(name).eval()
    before = {key: value.clone() for key, value in task.state_dict().items()}
    batch = random_batch((3, 5, 2, 4), BOUND, size=32)
    first, second = (task(batch, seed)[0] for seed in (0, 1))
    assert all(torch.equal(value, second[key]) for key, value in first.items())
    assert all(torch.equal(value, before[key]) for key, value in task.state_dict().items())


@pytest.mark.parametrize("name", RIVALS)
def test_the_weights_of_a_finished_run_are_those_that_it_is_opened_with(name: str) -> None:
    trained, opened = rival_task(name), rival_task(name, for_training=False)
    kept = {key for key in trained.state_dict() if not key.startswith(trained.training_only)}
    assert opened.state_dict().keys() == kept


@pytest.mark.parametrize("name", [name for name in RIVALS if name != "mrm"])  # which has none
def test_a_temperature_that_the_recipe_changes_is_not_that_of_the_weights(name: str) -> None:
    """`--init`: what another run learned stays with it where the recipe says otherwise."""
    objective = rival_task(name, **({"global_weight": 1.0} if name == "radzero" else {})).objective
    same, other = objective.settings, objective.settings.model_copy(update={"temperature": 0.5})
    assert objective.kept_from(same) == {}
    learned = isinstance(getattr(objective, "logit_scale", None), LogitScale)
    said = {"logit_scale": "objective.temperature is 0.1, there 0.5"} if learned else {}
    assert objective.kept_from(other) == said


def test_radzero_keeps_a_tau_that_is_changed_or_held_fixed() -> None:
    def kept(before: ObjectiveSettings, **options: object) -> dict[str, str]:
        options = {"global_weight": 1.0} | options
        return rival_task("radzero", **options).objective.kept_from(before)

    learned = ObjectiveSettings(name="radzero", options={"tau": 0.2})
    assert kept(learned, tau=0.2) == {}
    assert kept(learned) == {"report_scale": "objective.options.tau is 0.07, there 0.2"}
    fixed = {"report_scale": "objective.options.tau is 0.2 and not learned"}
    assert kept(learned, tau=0.2, learn_tau=False) == fixed
    assert kept(ObjectiveSettings(tau=0.3), tau=0.3) == {}  # of the method itself
    assert kept(ObjectiveSettings(name="clip")) == {}  # which has no such scale
    whole = {"logit_scale": "objective.temperature is 0.1 and not learned"}
    assert kept(learned, tau=0.2, global_weight=0) == whole


def test_the_method_starts_with_a_tau_of_its_own_after_radzero() -> None:
    kept = rival_task("cm-cgns").objective.kept_from
    assert "report_scale" not in kept(ObjectiveSettings(name="radzero", options={"tau": 0.1}))
    said = kept(ObjectiveSettings(name="radzero"))["report_scale"]  # which starts at .07
    assert said == "objective.tau is 0.1, there 0.07"


@pytest.mark.parametrize("name", ["siglip", "fane"])
def test_a_bias_that_the_recipe_changes_is_not_that_of_the_weights(name: str) -> None:
    objective = rival_task(name, bias=-3.4).objective
    before = ObjectiveSettings(name=name, dim=16, options={"bias": -10.0})
    assert objective.kept_from(before) == {"bias": "objective.options.bias is -3.4, there -10"}
    assert objective.kept_from(before.model_copy(update={"options": {"bias": -3.4}})) == {}
    assert objective.kept_from(ObjectiveSettings(name="clip", dim=16)) == {}  # which has none


def test_what_is_not_read_is_refused() -> None:
    with pytest.raises(UserError, match=r"mrm does not read objective\.temperature"):
        find_objective(ObjectiveSettings(name="mrm", temperature=0.5))
    with pytest.raises(UserError, match="map_temperature is not read with attention=cross"):
        rival_task("radzero", attention="cross", map_temperature=0.5)
    with pytest.raises(
        UserError, match=r"objective\.temperature is not read with objective\.options\.global_weight=0"
    ):
        find_objective(ObjectiveSettings(name="radzero", temperature=0.5))
    find_objective(ObjectiveSettings(name="radzero", temperature=0.5, options={"global_weight": 0.5}))
    with pytest.raises(UserError, match=r"bias is no setting\. There are none"):
        rival_task("clip", bias=-3.0)


def test_two_objectives_of_one_name_are_refused() -> None:
    with pytest.raises(ValueError, match=r"clip is registered twice, in cmcgns\.objectives\.rivals\.clip and in"):
        register("clip")(type("Other", (Rival,), {}))
