"""Multi-rank LoRA over frozen layers, SVD and PEFT files."""
