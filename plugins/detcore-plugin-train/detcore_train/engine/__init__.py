"""The training engine on Lightning."""
