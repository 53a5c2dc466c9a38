"""bfloat16 on a processor that lacks it: the same numbers, by way of float32."""

from collections.abc import Callable
from contextlib import nullcontext

import pytest
import torch
from lightning.fabric import Fabric
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from cmcgns.training import mixed_precision
from cmcgns.training.mixed_precision import SinglePrecisionProducts, UnconvertedBatches

_ULP = 2**-8  # of bfloat16's seven bits behind the leading one, and one for the rounding


def numbers(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape))).bfloat16()


PRODUCTS: dict[str, Callable[[], Tensor]] = {
    "mm": lambda: numbers(9, 300) @ numbers(300, 7),
    "addmm": lambda: torch.addmm(numbers(7), numbers(9, 300), numbers(300, 7)),
    "bmm": lambda: numbers(3, 9, 300) @ numbers(3, 300, 7),
    "baddbmm": lambda: torch.baddbmm(numbers(3, 9, 7), numbers(3, 9, 300), numbers(3, 300, 7)),
    "convolution": lambda: torch.conv2d(numbers(2, 5, 8, 8), numbers(6, 5, 3, 3), numbers(6), stride=2, padding=1),
}


@pytest.mark.parametrize("name", PRODUCTS)
def test_a_product_is_torchs_own_up_to_the_last_bit(name: str) -> None:
    theirs = PRODUCTS[name]()
    with SinglePrecisionProducts():  # type: ignore[no-untyped-call]
        ours = PRODUCTS[name]()
    assert ours.dtype == theirs.dtype == torch.bfloat16
    torch.testing.assert_close(ours, theirs, rtol=_ULP, atol=_ULP * float(theirs.abs().max()) / 16)
    assert (ours == theirs).float().mean() > 0.9


def test_a_product_is_that_of_the_rounded_numbers_rounded_once() -> None:
    """Against 64 bits. Sums kept in bfloat16 would stand still at 256."""
    a, b = numbers(40, 2000), numbers(2000, 30)
    with SinglePrecisionProducts():  # type: ignore[no-untyped-call]
        product = a @ b
        ones = torch.ones(1, 1000, dtype=torch.bfloat16) @ torch.ones(1000, 1, dtype=torch.bfloat16)
    assert (product == (a.double() @ b.double()).bfloat16()).float().mean() > 0.99
    assert float(ones) == 1000


def test_other_numbers_are_left_as_they_are() -> None:
    a = torch.randn(5, 6)
    single, double = a @ a.T, a.double() @ a.double().T
    with SinglePrecisionProducts():  # type: ignore[no-untyped-call]
        assert torch.equal(a @ a.T, single)
        assert torch.equal(a.double() @ a.double().T, double)
        assert (numbers(4) + numbers(4)).dtype == torch.bfloat16


class Seen(TorchDispatchMode):
    """The products that reach torch, with the type of their numbers."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.products: set[tuple[str, torch.dtype]] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        name = func.name()
        if any(word in name for word in ("mm", "convolution")):
            self.products |= {(name, a.dtype) for a in args if isinstance(a, Tensor)}
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("lack", ["no AVX-512", ""])
@pytest.mark.parametrize("autograd", [True, False])
def test_training_and_validation_take_their_products_that_way_where_bfloat16_is_lacking(
    lack: str, autograd: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mixed_precision, "imitated_bfloat16", lambda device: lack if device == "cpu" else "")
    fabric = Fabric(accelerator="cpu", devices=1, plugins=UnconvertedBatches())
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten(), nn.Linear(4 * 36, 5))
    with Seen() as seen, nullcontext() if autograd else torch.no_grad():
        if autograd:
            fabric.backward(fabric.setup(net)(torch.randn(3, 1, 8, 8)).square().mean())
        else:
            with fabric.autocast():
                net(torch.randn(3, 1, 8, 8))
    names = {name for name, _ in seen.products}
    assert {"aten::addmm", "aten::convolution"} <= names
    assert ("aten::convolution_backward" in names and "aten::mm" in names) == autograd
    assert {dtype for _, dtype in seen.products} == {torch.float32 if lack else torch.bfloat16}


def test_gradients_are_torchs_own(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 5), nn.GELU(), nn.Linear(5, 2))
    images = torch.randn(8, 1, 8, 8)
    gradients = {}
    for lack in ("no AVX-512", ""):
        monkeypatch.setattr(mixed_precision, "imitated_bfloat16", lambda device, lack=lack: lack)
        net.zero_grad()
        fabric = Fabric(accelerator="cpu", devices=1, plugins=UnconvertedBatches())
        fabric.backward(fabric.setup(net)(images).square().mean())
        gradients[lack] = [parameter.grad.clone() for parameter in net.parameters() if parameter.grad is not None]
    for ours, theirs in zip(gradients["no AVX-512"], gradients[""], strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0.03, atol=0.01 * float(theirs.abs().max()))
