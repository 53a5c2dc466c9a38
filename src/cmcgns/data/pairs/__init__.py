"""A table of radiographs and reports: read, checked, split by patient, served in batches."""
