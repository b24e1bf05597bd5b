"""From columns to text with targets."""
