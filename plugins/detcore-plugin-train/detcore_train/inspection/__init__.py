"""The data of an experiment, looked at with the experiment's own eyes."""
