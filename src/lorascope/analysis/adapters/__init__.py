"""Analysis of the trained adapters: spectrum, truncation, forgetting."""
