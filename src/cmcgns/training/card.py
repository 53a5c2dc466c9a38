"""The model card of a run folder."""

from typing import TYPE_CHECKING

from cmcgns.common.files import write_text
from cmcgns.settings.config import Recipe

if TYPE_CHECKING:
    from cmcgns.training.run_folder import RunFolder

_TEXT = """# {name}

A radiograph encoder ({image}) and a report encoder ({report}), pretrained together without labels by cross-modal
cluster-guided negative sampling (CM-CGNS, arXiv 2506.11674).

| | |
|---|---|
| input | one gray image, long side {resize}, padded to a square, cropped to {size} px, scaled to [-1, 1] |
| stages | alignment {alignment} epochs, reconstruction {reconstruction} epochs |
| false negatives | {false_negatives} |
| settings, versions, hashes | `config.yaml`, `provenance.json` |
| who was trained on | `seen.parquet`: patient ids and thumbnails of 32 px, for the leakage guard |

Take `seen.parquet` out of this folder before you publish a run on data that must not be passed on.

```python
import cmcgns

model = cmcgns.load("PATH OF THIS FOLDER")
model.embed_image(["radiograph.png"])  # (1, {dim}), unit length
model.embed_text(["No pleural effusion."])
```

**Not a medical device.** The weights carry the biases of the data they were trained on; evaluate before any use.
"""


def write_card(folder: "RunFolder", recipe: Recipe) -> None:
    """Write `card.md`."""
    text = _TEXT.format(
        name=recipe.name,
        image=recipe.image_encoder.name,
        report=recipe.report_encoder.name,
        resize=recipe.data.resize,
        size=recipe.data.image_size,
        alignment=recipe.alignment.epochs,
        reconstruction=recipe.reconstruction.epochs,
        false_negatives=recipe.objective.false_negatives,
        dim=recipe.objective.dim,
    )
    write_text(folder.card, text)
