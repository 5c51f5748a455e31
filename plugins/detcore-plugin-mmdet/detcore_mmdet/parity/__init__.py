"""How far detcore's numbers are from MMDetection's, measured on golden numbers.

Every golden goes through :func:`~detcore_mmdet.translate` and, for whole models,
:func:`~detcore_mmdet.from_mmdet`. ``python -m detcore_mmdet.parity`` writes the table in
``docs/parity.md``.
"""
