"""Costs of matching predictions to ground truths, the parts of :class:`~detcore_assigners.HungarianAssigner`."""
