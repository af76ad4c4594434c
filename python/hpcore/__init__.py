"""Training that does not stop: checkpointless, elastic distributed PyTorch."""
