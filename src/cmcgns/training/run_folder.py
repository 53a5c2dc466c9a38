"""The run folder: everything a run leaves behind, movable and readable offline."""

import hashlib
import json
import os
import platform
import sys
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
import yaml

from cmcgns.common.claim import LOCK
from cmcgns.common.errors import UserError
from cmcgns.common.files import is_left_over, sha256, write_json, write_text
from cmcgns.common.packaged import packaged_text
from cmcgns.common.remote import not_here
from cmcgns.common.safe_text import markdown_text
from cmcgns.common.stored import read_json
from cmcgns.common.version import VERSION
from cmcgns.data.images.place import RESAMPLING
from cmcgns.objectives.objective import read_settings, without_unread
from cmcgns.settings.config import ObjectiveSettings, Recipe
from cmcgns.settings.recipe import parse_stored_recipe
from cmcgns.settings.yaml import read_mapping_file

_PACKAGES = ("torch", "torchvision", "timm", "transformers", "tokenizers", "lightning", "numpy", "pandas")
_METHOD = "cross-modal\ncluster-guided negative sampling (CM-CGNS, arXiv 2506.11674)"


class RunFolder:
    """Paths and small files of a run."""

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
        self.scores = path / "scores.json"
        self.seen = path / "seen.parquet"
        self.tensorboard = path / "tensorboard"
        self.best = self.state / "best-alignment.safetensors"

    def check_new(self) -> None:
        """Whether a new run can start in the folder, which this process has claimed.

        Raises:
            UserError: the folder holds something already.
        """
        if self.config.is_file():
            raise UserError(f"--out {self.path} holds a run already: go on with --resume, or choose another folder")
        if not self._is_free():
            raise UserError(
                f"--out {self.path} is not empty, and what is there is no run (no config.yaml): choose another folder"
            )

    def check_started(self) -> None:
        """Whether there is a run to go on with.

        Raises:
            UserError: there is none.
        """
        if self.config.is_file():
            return
        if self._is_free():
            raise UserError(f"--resume: {self.path} holds no run yet: leave out --resume to start it")
        raise UserError(
            f"--resume: {self.path} is no run folder: config.yaml is missing. If there was one, {self._write_again()}"
        )

    def _is_free(self) -> bool:
        """Whether there is nothing but what a start that was stopped before config.yaml leaves behind."""
        own = {LOCK, self.provenance.name, self.preprocess.name}
        there = list(self.path.iterdir()) if self.path.is_dir() else []
        others = [path for path in there if path.name not in own and not is_left_over(path)]
        return others == [] or (others == [self.state] and not any(self.state.iterdir()))

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
        write_text(self.config, yaml.safe_dump(read_settings(recipe), sort_keys=False))

    def read_recipe(self) -> Recipe:
        """The settings of the run.

        Raises:
            UserError: not a run folder.
        """
        if not self.config.is_file():
            raise UserError(f"{self.path} is no run folder: config.yaml is missing{not_here(self.path)}")
        settings = read_mapping_file(self.config)
        if missing := [name for name in Recipe.model_fields if name not in settings]:
            raise UserError(f"{self.config} is damaged ({', '.join(missing)} missing): {self._write_again()}")
        if isinstance(settings["objective"], dict):  # older runs kept all of it
            settings["objective"] = without_unread(settings["objective"])
        try:
            return parse_stored_recipe(settings, str(self.config))
        except UserError as error:
            raise UserError(f"{error}{self.other_version()}") from None

    def _write_again(self) -> str:
        return f"write it again: `cmcgns recipes RECIPE > {self.config}`, with the --set options of the run"

    def other_version(self) -> str:
        """The end of a message about what does not fit: that the run was made by another version; else empty."""
        this = VERSION
        made_by = self.read_provenance().get("packages", {}).get("cmcgns", this)
        if made_by == this:
            return ""
        return f"\n  The run was made by cmcgns {made_by}, this is {this}: use that version for it"

    @property
    def is_finished(self) -> bool:
        """Whether the run has come to its end and its weights are there."""
        return self.model.is_file() and self.has_ended

    @property
    def has_ended(self) -> bool:
        """Whether the run has come to its end, whatever became of its weights since."""
        return "finished" in self.read_provenance()

    def read_report_config(self) -> dict[str, Any]:
        """The report encoder's Hugging Face configuration.

        Raises:
            UserError: the file is missing or damaged.
        """
        return read_json(self.report_encoder, "take that of another run of the same recipe")

    def read_init(self) -> Path | None:
        """The run whose weights this one started from.

        Raises:
            UserError: nobody knows, because provenance.json is missing or damaged.
        """
        if not self.provenance.is_file():
            raise UserError(f"{self.provenance} is missing, which says what the run started from: start anew")
        init = self.read_provenance().get("init")
        return Path(init) if init else None

    def write_card(self, recipe: Recipe, aligned: bool = True) -> None:
        """The model card.

        Args:
            recipe: of the run.
            aligned: whether whole images and reports have a space in common.
        """
        method = _METHOD if recipe.objective.name == "cm-cgns" else f"the objective `{recipe.objective.name}`"
        row = f"| objective | {_parts(recipe.objective)} |\n"
        names = {
            "name": markdown_text(recipe.name),
            "image_encoder": markdown_text(recipe.image_encoder.name),
            "report_encoder": markdown_text(recipe.report_encoder.name),
        }
        use = _USE[aligned].format(dim=recipe.objective.dim)
        text = packaged_text("cmcgns.training", "card.md")
        write_text(self.card, text.format(recipe=recipe, method=method, parts=row, use=use, **names))

    def write_provenance(self, content: dict[str, Any]) -> None:
        """Merge facts into provenance.json."""
        write_json(self.provenance, self.read_provenance() | content)

    def read_provenance(self) -> dict[str, Any]:
        """The facts noted so far; none without the file."""
        if not self.provenance.is_file():
            return {}
        return read_json(
            self.provenance, "put it back from a copy; or take it away, and what it says of the run is lost"
        )


_USE = {
    True: """model.embed_image(["radiograph.png"])  # (1, {dim}), unit length
model.embed_text(["No pleural effusion."])""",
    False: "model.image_encoder  # a torch module; whole images and reports have no space in common",
}  # by whether they have


def _parts(objective: ObjectiveSettings) -> str:
    """The losses that a run had, and what they were computed with; of a rival its own settings."""
    if objective.name != "cm-cgns":
        options = [f"{name} {value}" for name, value in objective.options.items()]
        return ", ".join([objective.name, f"D {objective.dim}", *options])
    weights = {"L_global": objective.weight_global, "L_image": objective.weight_image}
    parts = [name for name, weight in weights.items() if weight]
    if objective.weight_report:
        clusters = f", {objective.bank.clusters} clusters" if objective.negatives != "in_batch" else ""
        treatment = f", false negatives {objective.false_negatives}" if objective.negatives == "cluster" else ""
        parts.append(f"L_report ({objective.local}, negatives {objective.negatives}{clusters}{treatment})")
        parts += ["L_match"] if objective.weight_matching else []
    if objective.reconstruction != "off" and objective.weight_reconstruction:
        hidden = f"{objective.mask_ratio:.0%} of the {objective.mask} hidden"
        parts.append(f"L_re ({objective.reconstruction}, {hidden}, {objective.target} rebuilt)")
    return ", ".join(parts)


def describe_environment() -> dict[str, Any]:
    """When, with which command, on what; no name of the machine, and no path but the command's own."""
    return {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": ["cmcgns", *sys.argv[1:]],
        "python": platform.python_version(),
        "packages": {"cmcgns": VERSION} | {name: metadata.version(name) for name in _PACKAGES},
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
