"""Helpers of the tests: tiny data, encoders, jobs, damaged files."""
