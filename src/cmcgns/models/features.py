"""What the encoders hand to an objective."""

from dataclasses import dataclass

from torch import Tensor


@dataclass
class Features:
    """Embeddings of B studies.

    Attributes:
        patches: (B, P, D) unit patch tokens `f_I`, row-major on `grid`.
        sentences: (B, M, D) sentence embeddings `f_R`; rows of padding are 0.
        image_global: (B, D) unit image embeddings.
        report_global: (B, D) unit report embeddings.
        grid: (h, w) with h·w = P.
        hidden: (B, P) true where reconstruction hides the position; None outside of it.
        hidden_patches: (B, P, D) patch tokens of the image whose hidden regions were painted over; None
            unless reconstruction masks pixels.
    """

    patches: Tensor
    sentences: Tensor
    image_global: Tensor
    report_global: Tensor
    grid: tuple[int, int]
    hidden: Tensor | None = None
    hidden_patches: Tensor | None = None
