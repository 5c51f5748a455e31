"""Which images an epoch has, in which order, and which of them share a batch."""
