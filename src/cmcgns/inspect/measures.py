"""The few figures that a run's page shows, out of the many that an evaluation has."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Measure:
    """A row of the table of results.

    Attributes:
        key: in `results.json`.
        task: of the protocol.
        metric: of the protocol.
        name: for people.
        short: for a narrow place.
        chance: what guessing gives; None where it has no fixed value.
    """

    key: str
    task: str
    metric: str
    name: str
    short: str
    chance: float | None


MEASURES = (
    Measure(
        "linear_auroc", "linear", "auroc", "linear probe, 10 % of the labels, mean AUROC", "linear probe\nAUROC", 0.5
    ),
    Measure("zero_shot_auroc", "zero_shot", "auroc", "zero-shot, mean AUROC", "zero-shot\nAUROC", 0.5),
    Measure(
        "report_to_image_r10",
        "retrieval",
        "report_to_image_r@10",
        "report → image, R@10",
        "report → image\nR@10",
        None,
    ),
    Measure(
        "grounding_cnr", "grounding", "cnr_similarity", "phrase grounding, contrast-to-noise", "grounding\nCNR", 0.0
    ),
    Measure(
        "grounding_pointing",
        "grounding",
        "pointing_similarity",
        "phrase grounding, pointing game",
        "pointing\ngame",
        None,
    ),
    Measure("knn_auroc", "knn", "auroc", "nearest neighbours, 10 %, mean AUROC", "k-NN\nAUROC", 0.5),
    Measure("detection_map", "detection", "map", "detection, 10 %, mAP", "detection\nmAP", None),
    Measure(
        "segmentation_dice",
        "segmentation",
        "dice_positive",
        "segmentation of boxes, 10 %, Dice",
        "segmentation\nDice",
        None,
    ),
)
