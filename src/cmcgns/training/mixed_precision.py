"""Mixed precision in which a batch stays as it was read."""

from typing import Any

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
