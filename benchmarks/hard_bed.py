"""Whether the hard synthetic studies can tell methods apart: what labels alone, and L_global alone, reach on them.

    python benchmarks/hard_bed.py runs/hard                                      # both arms
    python benchmarks/hard_bed.py runs/hard --set training.precision=bf16-mixed  # where the CPU has bfloat16

Mean AUROC over the findings on the validation split: of the recipe's image encoder trained on every true label, of
the study and of its patches, and of a linear probe (10 % of the labels, three draws) on the same encoder pretrained
with L_global alone. The bed is right where the first passes 0.95, so that findings are visible, and the second lies
between 0.70 and 0.85, so that there is something to gain.
"""

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cmcgns.data.images.files import open_picture
from cmcgns.data.images.read import load_images
from cmcgns.data.manifest import label_columns, read_manifest
from cmcgns.evaluation.study_set import read_study_set
from cmcgns.metrics.ranking import RankedScores
from cmcgns.models.image_encoder import ImageEncoder
from cmcgns.phantom import write_dataset
from cmcgns.pretrained import load
from cmcgns.settings.config import Recipe
from cmcgns.settings.recipe import load_recipe
from cmcgns.training.pretrain import pretrain
from synthetic_table import ARMS, embedded, fit_probes, labels_of

SIZE, BATCH, SHIFT = 128, 32, 8
PATCH_LOSS = {"patch": 4.0, "study": 0.0}
POSITIVE_WEIGHT = 4.0  # of patches
MASK_SHARE = 0.25  # of a patch or of the finding, from which on the patch shows the finding


@dataclass(frozen=True)
class Split:
    """Images (n, H, W), labels (n, C), and a bit a finding (n, H, W) in the order of the labels."""

    images: Tensor
    labels: Tensor
    layers: Tensor


def recipe_of(overrides: Sequence[str], seed: int) -> Recipe:
    """The recipe ``hard-cpu`` with L_global alone."""
    return load_recipe("hard-cpu", [*ARMS["global"], f"training.seed={seed}", *overrides])


class Supervised(nn.Module):
    """The image encoder with a logit a patch and label; a soft maximum of them is the study's."""

    def __init__(self, recipe: Recipe, labels: int) -> None:
        super().__init__()
        self.encoder = ImageEncoder(recipe.image_encoder, SIZE)
        self.head = nn.Linear(self.encoder.width, labels)
        self.low_precision = recipe.training.precision == "bf16-mixed"
        nn.init.constant_(self.head.bias, -5.0)  # few patches of few studies show a finding

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 1, H, W) -> logits of the studies (B, C) and of their patches (B, P, C)."""
        with torch.autocast(images.device.type, torch.bfloat16, enabled=self.low_precision):
            logits: Tensor = self.head(self.encoder.tokens(images))
        logits = logits.float()
        return logits.logsumexp(1), logits


def read_split(folder: Path, split: str) -> Split:
    """Read the images, labels and masks of one split."""
    frame = read_manifest(folder)
    frame = frame[frame["split"] == split]
    pixels, _ = load_images([str(folder / path) for path in frame["image_path"]], SIZE)
    layers = np.zeros((len(frame), SIZE, SIZE), np.int16)
    for row, path in enumerate(frame["finding_layer_path"]):
        if path:
            with open_picture(folder / path) as picture:
                layers[row] = np.asarray(picture).astype(np.int16)
    labels = frame[label_columns(frame)].to_numpy(np.float32)
    return Split(torch.from_numpy(np.array(pixels)), torch.from_numpy(labels), torch.from_numpy(layers))


def normalised(images: Tensor) -> Tensor:
    """(n, H, W) bytes -> (n, 1, H, W) of about unit variance."""
    return (images[:, None].float() / 255 - 0.5) / 0.25


def patch_labels(layers: Tensor, labels: int, side: int) -> Tensor:
    """Whether a patch shows a finding: (B, H, W) bits -> (B, P, C), patches of ``side`` pixels."""
    inside = (layers[:, None] >> torch.arange(labels, dtype=torch.int16)[:, None, None] & 1).float()
    covered = F.avg_pool2d(inside, side)
    of_finding = covered / covered.sum((2, 3), keepdim=True).clamp(min=1e-9)
    shown = (torch.maximum(covered, of_finding) >= MASK_SHARE).float()
    return shown.flatten(2).transpose(1, 2)


def moved(split: Split, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Images and layers of a batch, shifted by a few pixels and, every second one, mirrored."""
    shift = torch.randint(-SHIFT, SHIFT + 1, (2,)).tolist()
    images, layers = (part[rows].roll(shift, (1, 2)) for part in (split.images, split.layers))
    return (images.flip(2), layers.flip(2)) if torch.rand(()) < 0.5 else (images, layers)


def train_supervised(
    recipe: Recipe, train: Split, val: Split, epochs: int, columns: list[str], weight: float
) -> Supervised:
    """Binary cross entropy on the labels of studies and, with a weight, of patches."""
    torch.manual_seed(recipe.training.seed)
    classes = train.labels.shape[1]
    model = Supervised(recipe, classes)
    steps = epochs * (len(train.images) // BATCH)
    optimiser = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 2e-3, total_steps=steps, pct_start=0.15)
    rare = torch.tensor(POSITIVE_WEIGHT)
    for epoch in range(epochs):
        total, start = 0.0, time.process_time()
        for rows in torch.randperm(len(train.images))[: len(train.images) // BATCH * BATCH].split(BATCH):
            images, layers = moved(train, rows)
            study, patch = model(normalised(images))
            shown = patch_labels(layers, classes, SIZE // model.encoder.grid[0])
            loss = F.binary_cross_entropy_with_logits(study, train.labels[rows])
            loss = loss + weight * F.binary_cross_entropy_with_logits(patch, shown, pos_weight=rare)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            total += loss.item() * BATCH / len(train.images)
        print(f"epoch {epoch + 1}: loss {total:.4f}, {time.process_time() - start:.0f} s of CPU time", flush=True)
        report("supervised", [judged(model, val)], val.labels.numpy(), columns)
    return model


@torch.no_grad()
def judged(model: Supervised, split: Split) -> np.ndarray:
    """Logits of all studies, (n, C)."""
    model.eval()
    logits = torch.cat([model(normalised(part))[0] for part in split.images.split(64)])
    model.train()
    return logits.numpy()


def report(name: str, logits: list[np.ndarray], labels: np.ndarray, columns: list[str]) -> None:
    """Print the mean and each class's AUROC, means over draws."""
    ones = np.ones((1, len(labels)), int)
    areas = np.mean([RankedScores(each, labels).auroc(ones)[0] for each in logits], axis=0)
    by_class = ", ".join(
        f"{label.removeprefix('label_')} {area:.2f}" for label, area in zip(columns, areas, strict=True)
    )
    print(f"{name}: mean AUROC {np.nanmean(areas):.3f} ({by_class})", flush=True)


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
    parser.add_argument("--train", type=int, default=6000)
    parser.add_argument("--val", type=int, default=1000)
    parser.add_argument("--epochs", type=int, default=6, help="of the training on labels; the recipe has the other's")
    parser.add_argument(
        "--labels", choices=tuple(PATCH_LOSS), default="patch", help="study: those of patches left out"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="of the recipe")
    parser.add_argument("--arm", choices=("supervised", "global", "both"), default="both")
    options = parser.parse_args()
    data = options.folder / "data"
    if not (data / "manifest.parquet").exists():
        write_dataset(data, {"train": options.train, "val": options.val}, seed=options.seed, size=SIZE, level="hard")
    recipe, columns = recipe_of(options.set, options.seed), label_columns(read_manifest(data))
    if options.arm != "global":
        train, val = read_split(data, "train"), read_split(data, "val")
        train_supervised(recipe, train, val, options.epochs, columns, PATCH_LOSS[options.labels])
    if options.arm != "supervised":
        judge_global(recipe, data, options.folder / "global", columns)


if __name__ == "__main__":
    main()
