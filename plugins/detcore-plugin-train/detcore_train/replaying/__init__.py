"""Finding out why a batch could not be trained on."""
