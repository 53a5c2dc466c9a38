"""One optimiser step: accumulation, clipping, losses that are no number, nothing read back from the device."""

import copy
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.fabric import Fabric
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AutoConfig

from cmcgns.data.pairs.batch import Batch, mix
from cmcgns.models.report_encoder import ReportEncoder
from cmcgns.settings.config import Recipe, ReportEncoderSettings, StageSettings
from cmcgns.training.data import PreparedData, prepare_data
from cmcgns.training.launch import launch
from cmcgns.training.step import NonFiniteLoss, build_optimizer, check_finite, training_step
from cmcgns.training.task import PretrainingTask, build_task
from support.training import BATCH, SETTINGS, first_batch, tiny_recipe


@pytest.fixture(scope="module")
def prepared(studies: Path) -> PreparedData:
    return prepare_data(tiny_recipe(), studies, fixed_shapes=True)


@pytest.fixture
def batches(prepared: PreparedData) -> list[Batch]:
    return [first_batch(prepared.train, list(range(first, first + BATCH))) for first in (0, BATCH, 2 * BATCH)]


def new_task(prepared: PreparedData, recipe: Recipe | None = None, stage: str = "reconstruction") -> PretrainingTask:
    torch.manual_seed(0)
    task = build_task(recipe or tiny_recipe(), len(prepared.tokenizer))
    task.set_stage(stage)
    return task.train()


def take_step(
    task: PretrainingTask, batches: list[Batch], *, rate: float = 0.1, clip: float = 0.0
) -> dict[str, Tensor]:
    """One step of plain gradient descent, so that the change of a weight shows its gradient."""
    fabric = Fabric(accelerator="cpu", devices=1)
    parameters = [p for p in task.parameters() if p.requires_grad]
    module, optimizer = fabric.setup(task, torch.optim.SGD(parameters, lr=rate))
    return training_step(fabric, module, task, optimizer, batches, seed=5, clip=clip)


def changes(before: PretrainingTask, after: PretrainingTask) -> dict[str, Tensor]:
    old = dict(before.named_parameters())
    return {name: (old[name] - p).detach() for name, p in after.named_parameters() if p.requires_grad}


def test_micro_batches_average_their_gradients(prepared: PreparedData, batches: list[Batch]) -> None:
    """Against a slow reference: a backward pass of its own for each, then the mean of the gradients."""
    task = new_task(prepared)
    start, reference = copy.deepcopy(task), copy.deepcopy(task)
    gradients: list[dict[str, Tensor]] = []
    losses = []
    for micro, batch in enumerate(batches):
        reference.zero_grad()
        torch.manual_seed(mix(5, micro, 0))
        loss = reference(batch, mix(5, micro))[0]["loss"]
        loss.backward()
        losses.append(loss.detach())
        gradients.append({name: p.grad.clone() for name, p in reference.named_parameters() if p.grad is not None})
    figures = take_step(task, batches)
    for name, change in changes(start, task).items():
        mean = torch.stack([part[name] for part in gradients]).mean(0)
        torch.testing.assert_close(change, 0.1 * mean, rtol=1e-4, atol=2e-6, msg=name)
    torch.testing.assert_close(figures["loss"], torch.stack(losses).mean())


def test_clipping_bounds_the_whole_gradient(prepared: PreparedData, batches: list[Batch]) -> None:
    task = new_task(prepared)
    start = copy.deepcopy(task)
    free = copy.deepcopy(task)
    clipped_figures = take_step(task, batches[:1], rate=1.0, clip=0.01)
    take_step(free, batches[:1], rate=1.0)
    clipped, whole = changes(start, task), changes(start, free)
    norm = torch.cat([change.flatten() for change in whole.values()]).norm()
    assert norm > 0.1
    torch.testing.assert_close(clipped_figures["gradient_norm"], norm, rtol=1e-3, atol=0)
    torch.testing.assert_close(
        torch.cat([change.flatten() for change in clipped.values()]),
        torch.cat([change.flatten() for change in whole.values()]) * (0.01 / norm),
        rtol=2e-2, atol=1e-6,
    )  # fmt: skip


def test_equal_seeds_draw_equal_dropout_and_masks(prepared: PreparedData, batches: list[Batch]) -> None:
    first, second = new_task(prepared), new_task(prepared)
    torch.manual_seed(1)
    one = take_step(first, batches[:1])
    torch.manual_seed(2)
    two = take_step(second, batches[:1])
    assert {name: float(value) for name, value in one.items()} == {name: float(v) for name, v in two.items()}


@pytest.mark.parametrize("bad", [0, 1], ids=["first micro-batch", "last micro-batch"])
def test_loss_that_is_no_number_stops_and_leaves_the_weights(
    bad: int, prepared: PreparedData, batches: list[Batch]
) -> None:
    task = new_task(prepared)
    batches[bad].images[0, 0, 0, 0] = torch.nan
    before = {name: p.detach().clone() for name, p in task.named_parameters()}
    with pytest.raises(NonFiniteLoss, match="the loss is not finite") as caught:
        take_step(task, batches[:2])
    assert all(name in str(caught.value) for name in batches[bad].study_ids)
    assert not any(name in str(caught.value) for name in batches[1 - bad].study_ids)
    assert all(torch.equal(before[name], p) for name, p in task.named_parameters())


def test_gradient_that_is_no_number_stops_too(prepared: PreparedData, batches: list[Batch]) -> None:
    """A finite loss can have an infinite gradient, which would spoil the next checkpoint."""
    task = new_task(prepared)
    before = {name: p.detach().clone() for name, p in task.named_parameters()}
    task.model.patch_projection.weight.register_hook(lambda gradient: gradient * torch.inf)
    with pytest.raises(NonFiniteLoss, match="the gradient norm is not finite"):
        take_step(task, batches[:1], clip=1.0)
    assert all(torch.equal(before[name], p) for name, p in task.named_parameters())


def test_gradient_that_is_no_number_stops_without_a_bound_too(prepared: PreparedData, batches: list[Batch]) -> None:
    task = new_task(prepared)
    before = {name: p.detach().clone() for name, p in task.named_parameters()}
    task.model.patch_projection.weight.register_hook(lambda gradient: gradient * torch.inf)
    with pytest.raises(NonFiniteLoss, match="the gradient norm is not finite"):
        take_step(task, batches[:1], clip=0.0)
    assert all(torch.equal(before[name], p) for name, p in task.named_parameters())


def test_pitfall_13_a_step_holds_the_logit_scales_below_their_bound(
    prepared: PreparedData, batches: list[Batch]
) -> None:
    task = new_task(prepared)
    scales = (task.objective.logit_scale, task.objective.report_scale)
    with torch.no_grad():
        for scale in scales:
            scale.logarithm.fill_(7.0)
    take_step(task, batches[:1])
    assert all(99.9 < float(scale.logarithm.detach().exp()) <= 100 for scale in scales)


def test_painted_images_leave_the_running_statistics_alone(prepared: PreparedData, batches: list[Batch]) -> None:
    """Evaluation sees whole images only; the second pass of `mask: pixels` sees images with holes."""
    statistics = []
    for mask in ("features", "pixels"):
        task = new_task(prepared, tiny_recipe(objective__mask=mask))
        task(batches[0])
        assert all(module.training for module in task.model.image_encoder.modules())
        state = task.model.image_encoder.body.state_dict()
        statistics.append({name: value.clone() for name, value in state.items() if "running" in name})
    assert statistics[0]
    assert all(torch.equal(statistics[0][name], value) for name, value in statistics[1].items())


def test_check_finite_names_terms() -> None:
    with pytest.raises(NonFiniteLoss, match=r"loss inf, global inf, image 2.*a, b"):
        check_finite(
            {"loss": torch.tensor(torch.inf), "global": torch.tensor(torch.inf), "image": torch.tensor(2.0)}, "ab"
        )
    check_finite({"loss": torch.tensor(1.0)}, "ab")


class NoHostReads(TorchDispatchMode):
    """Refuses operations whose result the host has to wait for, or whose shape depends on values."""

    REFUSED = ("_local_scalar_dense", "nonzero", "masked_select", "unique", "equal", "is_nonzero", "bincount", "item")

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__.strip("_") if func.namespace == "aten" else ""
        boolean_index = name.startswith("index") and any(
            isinstance(i, Tensor) and i.dtype in (torch.bool, torch.uint8)
            for i in (args[1] if len(args) > 1 and isinstance(args[1], list | tuple) else ())
        )
        if boolean_index or any(name == word.strip("_") or name.startswith(f"{word}_") for word in self.REFUSED):
            raise AssertionError(f"the step reads from the device: {func}")
        if name.startswith("unique"):
            raise AssertionError(f"the shape depends on values: {func}")
        return func(*args, **(kwargs or {}))

    # On the CPU these do nothing that a dispatcher would see; on a GPU the host waits for each.
    METHODS = ("tolist", "cpu", "numpy", "item", "__bool__", "__float__", "__int__", "__index__")
    FUNCTIONS = ("allclose", "repeat_interleave")


def refused(name: str) -> Any:
    def refuse(*_: Any, **__: Any) -> Any:
        raise AssertionError(f"the step reads from the device: {name}")

    return refuse


def moved(tensor: Tensor, *args: Any, **options: Any) -> Tensor:
    device = options.get("device", args[0] if args else None)
    caller = sys._getframe(1).f_globals["__name__"]  # the libraries move tensors to where they are already
    if isinstance(device, str | torch.device) and not caller.startswith(("torch.", "transformers.")):
        raise AssertionError(f"the step moves a tensor to {device}")
    return TO(tensor, *args, **options)


def written(tensor: Tensor, index: Any, value: Any) -> None:
    """A number that is written to places of a tensor, or to one element, may travel from the host, which waits."""
    picked = [each for each in (index if isinstance(index, tuple) else (index,)) if isinstance(each, Tensor)]
    if not isinstance(value, Tensor) and (picked or tensor[index].ndim == 0):
        raise AssertionError("the step reads from the device: a number is written")
    SET(tensor, index, value)


TO, SET = Tensor.to, Tensor.__setitem__


def one_hot(index: Tensor, classes: int) -> Tensor:
    """On the CPU alone torch's own reads the largest index to check it."""
    return (index[..., None] == torch.arange(classes)).long()


@contextmanager
def no_host_reads() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch, NoHostReads():
        patch.setattr(torch.nn.functional, "one_hot", one_hot)
        for name in NoHostReads.METHODS:
            patch.setattr(Tensor, name, refused(name))
        for name in NoHostReads.FUNCTIONS:
            patch.setattr(torch, name, refused(name))
        patch.setattr(Tensor, "to", moved)
        patch.setattr(Tensor, "__setitem__", written)
        yield


@pytest.mark.parametrize(
    "read",
    [
        lambda x: float(x.sum()),
        lambda x: x[x > 0],
        lambda x: x.nonzero(),
        lambda x: bool((x > 0).any()),
        lambda x: x.long().unique(),
        lambda x: torch.equal(x, x),
        lambda x: x.masked_select(x > 0),
        lambda x: x.tolist(),
        lambda x: x.cpu(),
        lambda x: x.to("cpu"),
        lambda x: x.to(torch.device("cpu")),
        lambda x: x.numpy(),
        lambda x: int(x[0]),
        lambda x: torch.allclose(x, x),
        lambda x: torch.repeat_interleave(x, x.long().abs()),
        lambda x: x.__setitem__(torch.zeros(2, dtype=torch.long), 1.0),
        lambda x: x.__setitem__(-1, 0),
    ],
)
def test_the_watch_for_host_reads_sees_them(read: Any) -> None:
    with no_host_reads(), pytest.raises(AssertionError, match=r"the step reads|the step moves|the shape depends"):
        read(torch.randn(4))


PUBLISHED = {
    "local": "own_query",
    "rarity": 0.0,
    "weight_matching": 0.0,
    "source": "cross_modal",
    "reseed": False,
    "patch_positions": False,
    "unit_values": False,
}
OBJECTIVES = [
    {},
    {"negatives": "in_batch"},
    {"negatives": "hard"},
    {"false_negatives": "soft", "patch_positions": False, "unit_values": False, "sentence_gradient": 0.0},
    PUBLISHED,
    PUBLISHED | {"false_negatives": "margin"},
    {"false_negatives": "keep"},
    {"mask": "pixels"},
    {"attention": "softmax"},
    PUBLISHED
    | {
        "arithmetic": "released",
        "learn_tau": False,
        "tau": 1.0,
        "duplicates": False,
        "false_negatives": "margin",
        "query": "unmasked",
        "sentence_gradient": 1.0,
    },
    {"target": "high_frequencies", "target_per_patch": True, "report_dropout": 0.5},
    {"target": "features", "mask": "pixels"},
    {"target": "text_map"},
]


@pytest.mark.parametrize("objective", OBJECTIVES, ids=str)
@pytest.mark.parametrize("stage", ["alignment", "reconstruction"])
@pytest.mark.parametrize("started", [False, True], ids=["before the bank", "with the bank"])
def test_step_reads_nothing_from_the_device(
    started: bool, stage: str, objective: dict[str, Any], prepared: PreparedData, batches: list[Batch]
) -> None:
    """After the bank has started, and before it except when it looks at the start conditions."""
    when = 1 if started else 100
    bank = {"clusters": 6, "start_from_step": 0, "start_by_step": when, "check_every": when}
    bank |= {name: objective[name] for name in ("source", "reseed") if name in objective}
    rest = {name: value for name, value in objective.items() if name not in bank}
    recipe = tiny_recipe(objective=SETTINGS["objective"] | rest | {"bank": bank})
    task = new_task(prepared, recipe, stage)
    optimizer = torch.optim.SGD([p for p in task.parameters() if p.requires_grad], lr=1e-3)
    for _ in range(2):
        task(batches[0])[0]["loss"].backward()
    assert task.objective.bank.is_started == (started and objective.get("negatives") != "in_batch")
    with no_host_reads():
        losses, _ = task(batches[1])
        losses["loss"].backward()
        torch.nn.utils.clip_grad_norm_(task.parameters(), 1.0)
        optimizer.step()
        task.objective.clamp_logit_scale()


@pytest.mark.parametrize("kind", ["bert", "roberta", "xlm-roberta", "camembert", "electra", "distilbert"])
def test_whole_mask_gives_what_the_mask_of_tokens_gives(kind: str) -> None:
    """The mask that keeps transformers from reading the device means the same."""
    config = AutoConfig.for_model(
        kind, vocab_size=50, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
        embedding_size=16, dim=16, hidden_dim=32, n_layers=2, n_heads=2,
    ).to_dict()  # fmt: skip
    encoder = ReportEncoder(ReportEncoderSettings(name=kind), 50, 12, config).eval()
    token_ids = torch.randint(4, 50, (3, 12))
    token_mask = torch.arange(12) < torch.tensor([12, 7, 3])[:, None]
    with no_host_reads():
        hidden = encoder(token_ids, token_mask)
    expected = encoder.body(input_ids=token_ids, attention_mask=token_mask.long()).last_hidden_state
    torch.testing.assert_close(hidden[token_mask], expected[token_mask])


def test_shapes_of_a_step_do_not_depend_on_the_reports(prepared: PreparedData, batches: list[Batch]) -> None:
    """Two batches of the same padded bounds run operations on the same shapes."""
    task = new_task(prepared)
    for _ in range(4):
        task(batches[2])[0]["loss"].backward()
    task.zero_grad(set_to_none=True)

    class Shapes(TorchDispatchMode):
        def __init__(self) -> None:
            super().__init__()
            self.seen: list[Any] = []

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            out = func(*args, **(kwargs or {}))
            tensors = out if isinstance(out, list | tuple) else [out]
            self.seen.append((str(func), [tuple(t.shape) for t in tensors if isinstance(t, Tensor)]))
            return out

    seen = []
    for batch in batches[:2]:
        with Shapes() as shapes:
            task(batch)[0]["loss"].backward()
        task.zero_grad(set_to_none=True)
        seen.append(shapes.seen)
    assert int(batches[0].sentence_mask.sum()) != int(batches[1].sentence_mask.sum())
    assert seen[0] == seen[1]


def test_bf16_losses_are_finite_and_close(prepared: PreparedData, batches: list[Batch]) -> None:
    full, half = new_task(prepared), new_task(prepared)
    reference = take_step(full, batches[:1])
    fabric = launch(tiny_recipe(training__precision="bf16-mixed"), 1, 1, "cpu")
    read: list[Tensor] = []
    half.register_forward_pre_hook(lambda _, given: read.append(given[0].images))
    module, optimizer = fabric.setup(half, build_optimizer(half, StageSettings()))
    figures = training_step(fabric, module, half, optimizer, batches[:1], seed=5, clip=1.0)
    for name in ("loss", "global", "image", "report", "reconstruction"):
        assert bool(torch.isfinite(figures[name]))
        assert float(figures[name]) == pytest.approx(float(reference[name]), rel=0.1, abs=0.1)
        assert figures[name].dtype == torch.float32
    assert all(p.dtype == torch.float32 for p in half.parameters())
    assert torch.equal(read[0], batches[0].images)  # targets of the reconstruction keep their 24 bits
