"""The forward pass in C, compiled on first use for the machine it runs on."""
