"""Optimizers: torch's, with parameter groups."""
