"""The page of a run: what was learned, shown on studies that were not trained on."""
