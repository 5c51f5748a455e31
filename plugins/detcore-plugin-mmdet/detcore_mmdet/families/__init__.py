"""Translators of MMDetection's components, one module per family, each with a table ``TRANSLATORS``."""
