"""Linear classification on frozen features, and fine-tuning."""
