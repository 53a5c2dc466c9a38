"""The small world in which the calls are made: every part is made once, when first asked for.

- `pairs/`: twelve pictures, `pairs.csv` with patients and reports
- `tiny.yaml`: a recipe for them
- `data/`: a prepared dataset of synthetic studies with reports, labels, boxes and masks
- `run/`: a finished run on it
- `judged/`, `twin/`: results of the run and of its random twin
- `shards/`: the pictures of `data/` as tar files
- `tree-NAME/`: a public dataset's own folder, as `prepare NAME` takes it
"""

import shutil
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import cached_property
from pathlib import Path

import yaml
from PIL import Image

from cmcgns.cli import app
from cmcgns.data.shards.write import write_shards
from cmcgns.phantom import write_dataset
from cmcgns.phantom.trees import write_tree
from cmcgns.pretrained import Pretrained, load
from support.training import SETTINGS, run, tiny_recipe

PROTOCOLS = "knn/v1,retrieval/v1"


class World:
    """The parts, below one folder.

    Args:
        root: an empty folder.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    @cached_property
    def model(self) -> Pretrained:
        """The run, loaded."""
        return load(self.part("run") or "")

    def part(self, name: str) -> Path | None:
        """Where a part is; None if there is none of that name."""
        base = name.partition("-")[0] if name.startswith("tree-") else name.removesuffix(".yaml")
        make: Callable[[Path], None] | None = getattr(self, f"_{base}", None) if name != "tree" else None
        path = self.root / name
        if make is None:
            return None
        if not path.exists():
            make(path)
        return path

    def _pairs(self, path: Path) -> None:
        path.mkdir()
        lines = ["image_path,patient_id,report"]
        for number in range(12):
            Image.new("L", (40, 30), 20 * number).save(path / f"{number}.png")
            lines.append(f"{number}.png,p{number},Finding {number} is small. Heart of normal size.")
        (path / "pairs.csv").write_text("\n".join(lines) + "\n")

    def _tiny(self, path: Path) -> None:
        settings = SETTINGS | {"training": {"batch_size": 2}, "data": SETTINGS["data"] | {"val_fraction": 0.3}}
        path.write_text(yaml.safe_dump(settings))

    def _data(self, path: Path) -> None:
        write_dataset(path, {"train": 16, "val": 6, "test": 8}, seed=1, size=48)

    def _run(self, path: Path) -> None:
        changes = {"training__batch_size": 4, "alignment__epochs": 1, "reconstruction__epochs": 1}
        run(self.root / "data" if self.part("data") else path, path, tiny_recipe(**changes))

    def _judged(self, path: Path) -> None:
        self._judge(str(self.part("run")), path)

    def _twin(self, path: Path) -> None:
        self._judge(f"random:{self.part('run')}", path)

    def _judge(self, encoder: str, path: Path) -> None:
        words = ["evaluate", encoder, "--protocol", PROTOCOLS, "--data", str(self.part("data")), "--out", str(path)]
        before, sys.argv = sys.argv, ["cmcgns", *words, "--fractions", "100", "--seeds", "1", "--device", "cpu"]
        try:
            with suppress(SystemExit):
                app.main()
        finally:
            sys.argv = before

    def _shards(self, path: Path) -> None:
        data = self.part("data")
        assert data is not None
        write_shards(data, path, 10)

    def _tree(self, path: Path) -> None:
        write_tree(path.name.removeprefix("tree-"), path, 8, size=32)

    def settle(self, name: str, here: Path, copied: bool) -> None:
        """Put a part into a folder: a copy if it will be damaged, else a link."""
        part = self.part(name)
        if part is None or (here / name).exists():
            return
        if not copied:
            (here / name).symlink_to(part)
        elif part.is_dir():
            shutil.copytree(part, here / name)
        else:
            shutil.copy(part, here / name)
