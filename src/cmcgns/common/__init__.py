"""Files, errors, processes: what every other folder may use."""
