"""The recipe of the run that the tests of its use share, and texts to embed."""

RECIPE = {
    "data": {"image_size": 32, "resize": 38, "max_tokens": 128, "max_sentences": 12},
    "image_encoder": {
        "name": "resnet10t", "channels": 1, "output_stride": 8,
        "options": {"channels": [8, 8, 16, 24], "stem_width": 8},
    },
    "report_encoder": {"layers": 1, "width": 32, "heads": 2, "vocabulary": 300},
    "objective": {"dim": 32, "decoder_width": 16, "bank": {"clusters": 4, "start_from_step": 0, "start_by_step": 2}},
    "alignment": {"epochs": 1, "learning_rate": 1e-3},
    "reconstruction": {"epochs": 1, "learning_rate": 1e-3},
    "training": {"batch_size": 8},
}  # fmt: skip

TEXTS = ["No pleural effusion.", "Large right pneumothorax. The heart is enlarged.", "Normal."]
