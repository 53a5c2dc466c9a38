"""Small real sets as prepared datasets, to try the protocols on: labels, boxes, masks, reports.

    CMCGNS_DEV_DATA=DIR python benchmarks/real_sets.py OUT

DIR holds four selections of public radiographs with their tables (see docs/results.md for what they are made of):
`nih/labels.csv` (14 labels), `rsna_boxes/images.csv` and `boxes.csv`, `lung_masks/masks.csv`, `case_notes/pairs.csv`.
Images are copied, because a table may only name files below its own folder. All four have a split `val` and no
`test`: evaluate with `--set split.test=[val] --set split.val=[]`.
"""

import argparse
import os
import shutil
from pathlib import Path

import pandas as pd

from cmcgns.data.boxes import boxes_text
from cmcgns.prepare.run import PrepareOptions, prepare

FINDINGS = (
    *("Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Effusion", "Emphysema", "Fibrosis"),
    *("Hernia", "Infiltration", "Mass", "Nodule", "Pleural_Thickening", "Pneumonia", "Pneumothorax"),
)


def nih(folder: Path) -> pd.DataFrame:
    """Fourteen labels."""
    frame = pd.read_csv(folder / "labels.csv", dtype=str)
    return frame.rename(columns={finding: f"label_{finding}" for finding in FINDINGS})


def rsna(folder: Path) -> pd.DataFrame:
    """Opacity boxes; images without one have the empty list. Patients are NIH's."""
    frame = pd.read_csv(folder / "images.csv", dtype=str)
    boxes = pd.read_csv(folder / "boxes.csv").rename(columns={"w": "width", "h": "height"})
    texts = boxes.groupby("image_path")[["label", "x", "y", "width", "height"]].apply(
        lambda rows: boxes_text(rows.to_dict("records"))
    )
    positive = frame["image_path"].isin(texts.index)
    return frame.assign(
        patient_id="nih:" + frame["patient_id"],
        boxes=frame["image_path"].map(texts).fillna("[]"),
        label_Pneumonia=positive.astype(int),
    ).drop(columns=["width", "height"])


def lung_masks(folder: Path) -> pd.DataFrame:
    """Lung masks."""
    return pd.read_csv(folder / "masks.csv", dtype=str).drop(columns=["width", "height"])


def case_notes(folder: Path) -> pd.DataFrame:
    """Free-text notes as reports."""
    frame = pd.read_csv(folder / "pairs.csv", dtype=str)
    return frame.drop(columns=["width", "height", "findings", "impression"])


SETS = {
    "nih": ("nih", nih),
    "rsna": ("rsna_boxes", rsna),
    "lung-masks": ("lung_masks", lung_masks),
    "case-notes": ("case_notes", case_notes),
}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    source = os.environ.get("CMCGNS_DEV_DATA")
    if not source:
        raise SystemExit("CMCGNS_DEV_DATA is not set: it names the folder with the four selections")
    for name, (folder, read) in SETS.items():
        raw = options.out / "raw" / name
        for part in ("images", "masks"):
            if (Path(source) / folder / part).is_dir():
                shutil.copytree(Path(source) / folder / part, raw / part, dirs_exist_ok=True)
        read(Path(source) / folder).to_csv(raw / "table.csv", index=False)
        prepare("table", raw, options.out / name, PrepareOptions(workers=options.workers, dataset=name))


if __name__ == "__main__":
    main()
