"""The checks, one module per interface; those of every component in ``components``."""
