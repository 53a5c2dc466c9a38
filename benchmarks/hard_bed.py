"""Whether the hard synthetic studies can tell methods apart: what labels alone, and L_global alone, reach on them.

    python benchmarks/hard_bed.py runs/hard --train 8000 --epochs 20   # hours on two CPU cores
    python benchmarks/hard_bed.py runs/small --train 1000 --epochs 5   # minutes: the direction only

Mean AUROC over the findings on the validation split: of the demo's image encoder trained on every true label, and
of a linear probe (10 % of the labels, three draws) on the same encoder pretrained with L_global alone. The bed is
right where the first passes 0.95, so that findings are visible, and the second lies between 0.70 and 0.85, so that
there is something to gain.

So far only the small call's first half was run: 0.60, that is 0.96 for the two large findings and about chance for
the small ones, which 155 steps do not find yet.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cmcgns.data.images.read import load_images
from cmcgns.data.manifest import label_columns, read_manifest
from cmcgns.evaluation.report_use import read_study_set
from cmcgns.metrics.ranking import RankedScores
from cmcgns.models.image_encoder import ImageEncoder
from cmcgns.phantom import write_dataset
from cmcgns.pretrained import load
from cmcgns.settings.config import Recipe
from cmcgns.settings.recipe import load_recipe
from cmcgns.training.pretrain import pretrain
from synthetic_table import ARMS, embedded, fit_probes, labels_of

SIZE, BATCH, SHIFT = 128, 32, 4
Split = tuple[Tensor, Tensor]
"""Images (n, 1, H, W) of about unit variance and labels (n, C)."""


def recipe_of(epochs: int, seed: int) -> Recipe:
    """The demo's recipe at 128 px with L_global alone; stride 16 gives 8 by 8 patches."""
    data = [f"data.image_size={SIZE}", f"data.resize={SIZE}"]
    return load_recipe("demo", [*data, *ARMS["global"], f"alignment.epochs={epochs}", f"training.seed={seed}"])


class Supervised(nn.Module):
    """The image encoder with a logit a patch and label; a soft maximum of them is the study's, (B, C)."""

    def __init__(self, recipe: Recipe, labels: int) -> None:
        super().__init__()
        self.encoder = ImageEncoder(recipe.image_encoder, SIZE)
        self.head = nn.Linear(self.encoder.width, labels)
        nn.init.constant_(self.head.bias, -2.0)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 1, H, W) -> (B, C)."""
        logits: Tensor = self.head(self.encoder.tokens(images))
        return logits.logsumexp(1) - float(np.log(logits.shape[1]))


def read_split(folder: Path, split: str) -> Split:
    """Read the images and labels of one split."""
    frame = read_manifest(folder)
    frame = frame[frame["split"] == split]
    pixels, _ = load_images([str(folder / path) for path in frame["image_path"]], SIZE)
    images = (torch.from_numpy(np.array(pixels)).float()[:, None] / 255 - 0.5) / 0.25
    return images, torch.from_numpy(frame[label_columns(frame)].to_numpy(np.float32))


def train_supervised(recipe: Recipe, train: Split, epochs: int) -> Supervised:
    """Binary cross entropy on all labels; pictures are shifted by a few pixels."""
    torch.manual_seed(recipe.training.seed)
    images, labels = train
    model = Supervised(recipe, labels.shape[1])
    steps = epochs * (len(images) // BATCH)
    optimiser = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 2e-3, total_steps=steps, pct_start=0.15)
    for epoch in range(epochs):
        total = 0.0
        for rows in torch.randperm(len(images))[: len(images) // BATCH * BATCH].split(BATCH):
            shift = torch.randint(-SHIFT, SHIFT + 1, (2,)).tolist()
            loss = F.binary_cross_entropy_with_logits(model(images[rows].roll(shift, (2, 3))), labels[rows])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            total += loss.item() * BATCH / len(images)
        print(f"epoch {epoch + 1}: loss {total:.4f}", flush=True)
    return model.eval()


def report(name: str, logits: list[np.ndarray], labels: np.ndarray, columns: list[str]) -> None:
    """Print the mean and each class's AUROC, means over draws."""
    ones = np.ones((1, len(labels)), int)
    areas = np.mean([RankedScores(each, labels).auroc(ones)[0] for each in logits], axis=0)
    by_class = ", ".join(
        f"{label.removeprefix('label_')} {area:.2f}" for label, area in zip(columns, areas, strict=True)
    )
    print(f"{name}: mean AUROC {np.nanmean(areas):.3f} ({by_class})", flush=True)


def judge_supervised(recipe: Recipe, data: Path, epochs: int, columns: list[str]) -> None:
    """Train on the labels and judge on the validation split."""
    model = train_supervised(recipe, read_split(data, "train"), epochs)
    images, labels = read_split(data, "val")
    with torch.no_grad():
        logits = torch.cat([model(part) for part in images.split(64)])
    report("supervised", [logits.numpy()], labels.numpy(), columns)


def judge_global(recipe: Recipe, data: Path, run: Path, columns: list[str]) -> None:
    """Pretrain with L_global alone, probe with 10 % of the labels and judge on the validation split."""
    if not (run / "model.safetensors").exists():
        pretrain(recipe, data, run, resume=(run / "config.yaml").exists())
    model = load(run)
    studies = read_study_set(data, "val", model)
    pooled = embedded(model, studies).pooled
    report("L_global", [probe.logits(pooled) for probe in fit_probes(model, data)], labels_of(studies), columns)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--train", type=int, default=8000)
    parser.add_argument("--val", type=int, default=1000)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--arm", choices=("supervised", "global", "both"), default="both")
    options = parser.parse_args()
    data = options.folder / "data"
    if not (data / "manifest.parquet").exists():
        write_dataset(data, {"train": options.train, "val": options.val}, seed=options.seed, size=SIZE, level="hard")
    recipe, columns = recipe_of(options.epochs, options.seed), label_columns(read_manifest(data))
    if options.arm != "global":
        judge_supervised(recipe, data, options.epochs, columns)
    if options.arm != "supervised":
        judge_global(recipe, data, options.folder / "global", columns)


if __name__ == "__main__":
    main()
