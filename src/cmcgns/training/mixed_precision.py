"""Mixed precision in which a batch stays as it was read."""

import platform
from typing import Any

import torch
from lightning.fabric.plugins.precision import MixedPrecision


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


def imitated_bfloat16(device: str) -> str:
    """What a device lacks to compute in bfloat16 by itself; empty if it lacks nothing, or nothing is known of it.

    Without it torch rounds the numbers on the way, which takes several times as long as float32.

    Args:
        device: its type, `cpu` or `cuda`, of this machine.
    """
    if device == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        return "this GPU is older than bfloat16"
    x86 = platform.machine().lower() in ("x86_64", "amd64")
    if device == "cpu" and x86 and "AVX512" not in torch.backends.cpu.get_cpu_capability():
        return "this processor has no AVX-512"
    return ""
