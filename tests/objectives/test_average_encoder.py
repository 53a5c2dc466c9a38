"""The average encoder: closed form, rest, and what it holds."""

import torch

from cmcgns.objectives.average_encoder import AverageEncoder
from cmcgns.training.task import build_task
from support.objectives import random_batch, small_task
from support.training import tiny_recipe

HEADS = ("patch_projection",)


def test_updates_equal_the_closed_form() -> None:
    model, momentum = small_task().model, 0.7
    average, history = AverageEncoder(model, HEADS, momentum), []
    with torch.no_grad():
        for step in range(5):
            for number, parameter in enumerate(model.parameters()):
                parameter.add_(
                    torch.randn(parameter.shape, generator=torch.Generator().manual_seed(97 * step + number))
                )
            history.append({name: value.clone() for name, value in model.state_dict().items()})
            average.update(model)
    for name, value in average.net.state_dict().items():
        expected = momentum**4 * history[0][name]
        for step in range(1, 5):
            expected = expected + (1 - momentum) * momentum ** (4 - step) * history[step][name]
        torch.testing.assert_close(value, expected, rtol=1e-5, atol=1e-5)
    assert int(average.updates) == 5


def test_it_begins_with_the_weights_of_the_first_update_not_with_those_it_was_built_from() -> None:
    model = small_task().model
    average = AverageEncoder(model, HEADS, 0.99)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1.0)
    average.update(model)
    for name, value in average.net.state_dict().items():
        assert torch.equal(value, model.state_dict()[name]), name


def test_whole_numbers_and_running_statistics_follow() -> None:
    recipe = tiny_recipe()
    model = build_task(recipe, 100).model.train()
    average = AverageEncoder(model, HEADS, 0.5)
    for _ in range(2):
        model.image_encoder(torch.rand(4, 1, 32, 32))
        average.update(model)
    norms = {name: value for name, value in average.net.named_buffers() if name.endswith("num_batches_tracked")}
    assert norms
    assert all(int(value) == 2 for value in norms.values())


def test_no_parameter_no_text_side_and_always_in_eval_mode() -> None:
    task = small_task(target="features").train()
    average = task.objective.average
    assert average is not None
    assert not list(average.parameters())
    assert not any(module.training for module in average.modules())
    names = {name.split(".")[1] for name in average.state_dict() if name.startswith("net.")}
    assert names == {"image_encoder", "patch_projection"}
    task.set_stage("reconstruction")
    before = {name: value.clone() for name, value in average.net.state_dict().items()}
    task.eval()(random_batch((2, 1), 2, size=32))
    assert all(torch.equal(value, before[name]) for name, value in average.net.state_dict().items())
    assert int(average.updates) == 0


def test_the_model_s_gradient_is_not_touched_by_the_target() -> None:
    task = small_task(target="features", weight_global=0.0, weight_image=1e-9, weight_report=0.0)
    task.set_stage("reconstruction")
    task(random_batch((2, 1), 2, size=32))[0]["loss"].backward()
    average = task.objective.average
    assert average is not None
    assert not any(value.requires_grad for value in average.state_dict(keep_vars=True).values())


def test_nothing_is_averaged_where_nothing_is_rebuilt() -> None:
    for weight, there in ((0.2, True), (0.0, False)):
        changes = {"objective__target": "features", "objective__weight_reconstruction": weight}
        task = build_task(tiny_recipe(**changes), 50)
        assert any(".average." in name for name in task.state_dict()) == there
