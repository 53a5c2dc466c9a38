"""Mixed precision in which a batch stays as it was read, and which is quick on processors without bfloat16."""

import platform
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from lightning.fabric.plugins.precision import MixedPrecision
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

_aten = torch.ops.aten
_PRODUCTS = frozenset(
    {
        _aten.mm.default,
        _aten.addmm.default,
        _aten.bmm.default,
        _aten.baddbmm.default,
        _aten.convolution.default,
        _aten.convolution_backward.default,
    }
)


class UnconvertedBatches(MixedPrecision):  # type: ignore[misc]  # Lightning's classes are not looked into
    """Autocast alone chooses what is computed in bfloat16.

    Fabric's own casts every floating tensor of a batch as well: images would have 8 bits before the first layer, and
    as targets of the reconstruction; in training, not in validation, which does not go through Fabric's wrapper.
    """

    def __init__(self) -> None:
        super().__init__("bf16-mixed", "cpu")  # whoever has launched it names the device that it has got

    def convert_input(self, data: Any) -> Any:
        """The batch."""
        return data

    @contextmanager
    def forward_context(self) -> Iterator[None]:
        """Autocast, with its products as the device takes them fastest."""
        with self._products(), super().forward_context():
            yield

    def backward(self, tensor: torch.Tensor, model: Any, *args: Any, **kwargs: Any) -> None:
        """The gradients, whose products are as those of the forward pass."""
        with self._products():
            super().backward(tensor, model, *args, **kwargs)

    def _products(self) -> AbstractContextManager[Any]:
        if self.device == "cpu" and imitated_bfloat16("cpu"):
            return SinglePrecisionProducts()  # type: ignore[no-untyped-call]
        return nullcontext()


class SinglePrecisionProducts(TorchDispatchMode):
    """Products of bfloat16 matrices and images, computed in float32 and rounded once.

    That is what a processor with bfloat16 does: it adds up in float32. On one without (x86 without AVX-512) torch's
    own loops take 10 to 40 times as long as the float32 product of the same numbers.
    """

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """The operator's result, in the type that it would have had."""
        kwargs = kwargs or {}
        if func in _PRODUCTS and any(isinstance(a, torch.Tensor) and a.dtype == torch.bfloat16 for a in args):
            args, kwargs = tree_map_only(torch.Tensor, torch.Tensor.float, (args, kwargs))
            return tree_map_only(torch.Tensor, torch.Tensor.bfloat16, func(*args, **kwargs))
        return func(*args, **kwargs)


def imitated_bfloat16(device: str) -> str:
    """What a device lacks to compute in bfloat16 by itself; empty if it lacks nothing, or nothing is known of it.

    Args:
        device: its type, `cpu` or `cuda`, of this machine.
    """
    if device == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        return "this GPU is older than bfloat16"
    x86 = platform.machine().lower() in ("x86_64", "amd64")
    if device == "cpu" and x86 and "AVX512" not in torch.backends.cpu.get_cpu_capability():
        return "this processor has no AVX-512"
    return ""
