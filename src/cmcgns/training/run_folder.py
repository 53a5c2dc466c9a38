"""The run folder: everything a run leaves behind, movable and readable offline."""

import hashlib
import importlib.metadata
import json
import os
import platform
import sys
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path
from typing import Any

import torch
import yaml

from cmcgns.common.errors import UserError
from cmcgns.common.files import sha256, write_json, write_text
from cmcgns.data.images.place import RESAMPLING
from cmcgns.settings.config import Recipe
from cmcgns.settings.recipe import parse_recipe

_PACKAGES = ("cmcgns", "torch", "torchvision", "timm", "transformers", "tokenizers", "lightning", "numpy", "pandas")
_METHOD = "cross-modal\ncluster-guided negative sampling (CM-CGNS, arXiv 2506.11674)"


class RunFolder:
    """Paths and small files of a run.

    Args:
        path: the folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config = path / "config.yaml"
        self.model = path / "model.safetensors"
        self.metrics = path / "metrics.jsonl"
        self.tokenizer = path / "tokenizer"
        self.state = path / "state"
        self.provenance = path / "provenance.json"
        self.preprocess = path / "preprocess.json"
        self.report_encoder = path / "report_encoder.json"
        self.card = path / "card.md"
        self.left_out = path / "left_out.csv"
        self.seen = path / "seen.parquet"
        self.tensorboard = path / "tensorboard"
        self.best = self.state / "best-alignment.safetensors"

    def make_empty(self) -> None:
        """Make an empty folder for a new run.

        Raises:
            UserError: the folder holds something already.
        """
        if self.path.exists() and (not self.path.is_dir() or any(self.path.iterdir())):
            raise UserError(f"--out {self.path} is not empty: go on with --resume, or choose another folder")
        self.path.mkdir(parents=True, exist_ok=True)

    def remove_leftovers(self) -> None:
        """Remove what a process that was killed while it wrote has left behind."""
        for leftover in self.state.glob(".*.tmp"):
            leftover.unlink()

    def create(self, recipe: Recipe, init: Path | None) -> None:
        """Write how the run starts, and how an image becomes the encoder's input; config.yaml comes last.

        With it the folder is a run folder.
        """
        self.state.mkdir(exist_ok=True)
        self.write_provenance({"init": str(init) if init else None})
        preprocess = {
            "resize_long_side": recipe.data.resize,
            "resampling": RESAMPLING.name.lower(),
            "antialias": True,
            "pad": "centred on a black square",
            "crop": recipe.data.image_size,
            "mean": 0.5,
            "std": 0.5,
            "channels": recipe.image_encoder.channels,
        }
        write_json(self.preprocess, preprocess)
        write_text(self.config, yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False))

    def read_recipe(self) -> Recipe:
        """The settings of the run.

        Raises:
            UserError: not a run folder.
        """
        if not self.config.is_file():
            raise UserError(f"{self.path} is no run folder: config.yaml is missing")
        try:
            return parse_recipe(yaml.safe_load(self.config.read_text("utf-8")), str(self.config))
        except UserError as error:
            raise UserError(f"{error}{self.other_version()}") from None

    def other_version(self) -> str:
        """The end of a message about what does not fit: that the run was made by another version; else empty."""
        this = importlib.metadata.version("cmcgns")
        made_by = self.read_provenance().get("packages", {}).get("cmcgns", this)
        if made_by == this:
            return ""
        return f"\n  The run was made by cmcgns {made_by}, this is {this}: use that version for it"

    @property
    def is_finished(self) -> bool:
        """Whether the run has come to its end and its weights are there."""
        return self.model.is_file() and "finished" in self.read_provenance()

    def read_init(self) -> Path | None:
        """The run whose weights this one started from."""
        init = self.read_provenance().get("init")
        return Path(init) if init else None

    def write_card(self, recipe: Recipe) -> None:
        """The model card."""
        published = recipe.objective.name == "cm-cgns"
        method = _METHOD if published else f"the objective `{recipe.objective.name}`"
        row = f"| false negatives | {recipe.objective.false_negatives} |\n" if published else ""
        text = resources.files(__package__).joinpath("card.md").read_text("utf-8")
        write_text(self.card, text.format(recipe=recipe, method=method, false_negatives=row))

    def write_provenance(self, content: dict[str, Any]) -> None:
        """Merge facts into provenance.json."""
        write_json(self.provenance, self.read_provenance() | content)

    def read_provenance(self) -> dict[str, Any]:
        """The facts noted so far; none without the file."""
        if not self.provenance.is_file():
            return {}
        return dict(json.loads(self.provenance.read_text("utf-8")))


def describe_environment() -> dict[str, Any]:
    """When, with which command, on what; no name of the machine, and no path but the command's own."""
    return {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": ["cmcgns", *sys.argv[1:]],
        "python": platform.python_version(),
        "packages": {name: importlib.metadata.version(name) for name in _PACKAGES},
        "hardware": {
            "machine": platform.machine(),
            "cpus": os.cpu_count(),
            "torch_threads": torch.get_num_threads(),
            "gpus": [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())],
        },
    }


def describe_run(recipe: Recipe, table: Path) -> dict[str, Any]:
    """Versions, hardware, command, hashes: what a reader needs to run it again."""
    settings = json.dumps(recipe.model_dump(mode="json"), sort_keys=True)
    return {
        **describe_environment(),
        "seed": recipe.training.seed,
        "settings_sha256": hashlib.sha256(settings.encode()).hexdigest(),
        "manifest_sha256": sha256(table),
    }
