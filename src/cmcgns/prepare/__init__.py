"""From a dataset as downloaded to a manifest with resized images."""
