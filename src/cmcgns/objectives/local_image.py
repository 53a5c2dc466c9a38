"""L_image: patches agree with what their report says about them (SimSiam, as in PRIOR)."""

import torch
from torch import Tensor, nn

from cmcgns.objectives.collective import sum_over_ranks, world_size


class Predictor(nn.Module):
    """D -> D/2 -> ReLU -> D, shared by both directions."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(dim, dim // 2)
        self.output = nn.Linear(dim // 2, dim)

    def forward(self, tokens: Tensor) -> Tensor:
        """(..., D) -> (..., D)."""
        return self.output(torch.relu(self.hidden(tokens)))  # type: ignore[no-any-return]


def local_image_loss(patches: Tensor, attended: Tensor, predictor: Predictor) -> Tensor:
    """Half the sum of the two SimSiam directions between f_I and f_R2I, with stop-gradient on the target.

    Args:
        patches: (B, P, D) patch tokens f_I.
        attended: (B, P, D) what each patch gathered from the report, f_R2I.
        predictor: the shared predictor.

    Returns:
        Negative cosine, mean over patches and studies of all ranks; in [-1, 1].
    """

    def negative_cosine(prediction: Tensor, target: Tensor) -> Tensor:
        prediction, target = prediction.float(), target.detach().float()
        # Dot products over norms: unlike `F.cosine_similarity` this writes out no normalised copies.
        norms = torch.linalg.vector_norm(prediction, dim=-1) * torch.linalg.vector_norm(target, dim=-1)
        cosines: Tensor = (prediction * target).sum(-1) / norms.clamp(min=1e-8)
        return -cosines.sum()

    both = negative_cosine(predictor(patches), attended) + negative_cosine(predictor(attended), patches)
    count = patches.shape[0] * patches.shape[1] * world_size()
    return sum_over_ranks(both / (2 * count))
