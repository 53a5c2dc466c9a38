"""What is recorded beside a protocol's cells, so that a later call and the report know what they are made from."""

from __future__ import annotations

import hashlib

import pandas as pd

from cmcgns.evaluation.call import EvaluateOptions
from cmcgns.evaluation.encoder import FrozenEncoder
from cmcgns.evaluation.leakage import Leakage
from cmcgns.evaluation.task_data import TaskData


def result_key(encoder: FrozenEncoder, data: TaskData) -> str:
    """Equal keys give equal predictions: encoder, protocol, split, labels, boxes and masks."""
    parts = [encoder.sha256, data.protocol.sha256, data.content_sha256]
    return hashlib.sha256(" ".join(parts).encode()).hexdigest()


def result_record(
    data: TaskData, encoder: FrozenEncoder, leakage: Leakage, options: EvaluateOptions
) -> dict[str, object]:
    """What `protocol.json` tells about a protocol's cells besides their key."""
    asked = {"fractions": list(options.fractions), "seeds": options.seeds}  # the report says what is missing of it
    settings = data.protocol.model_dump(mode="json") | {name: value for name, value in asked.items() if value}
    test = data.frame[data.frame["part"] == "test"]
    return {
        "dataset": data.dataset,
        "settings": settings,
        "protocol_sha256": data.protocol.sha256,
        "split_sha256": data.split_sha256,
        "counts": data.counts(),
        "test_patients": int(test["patient_id"].nunique()),
        "image_size": encoder.image_size,
        "leakage": leakage.text,
        "cautions": [caution.text for caution in leakage.cautions],
        "test": {
            "rows": data.test.names.tolist(),
            "sex": test["sex"].tolist(),
            "view": test["view"].tolist(),
            "age": [None if pd.isna(value) else int(value) for value in test["age"]],
        },
    }
