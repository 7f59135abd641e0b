"""A synthetic Gen3DHF: drawn faces that turn, planted distortions, simulated annotators."""
