"""What the trained adapters contain: spectrum, truncation, forgetting."""
