"""Malformed calls, verb by verb, and what the answer to each must say."""
