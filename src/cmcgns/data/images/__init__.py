"""Radiographs and masks: from files to arrays."""
