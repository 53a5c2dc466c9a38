"""Objectives of other papers on the same encoders, one a file: found by `objective.name`."""
