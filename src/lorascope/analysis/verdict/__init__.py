"""What the data supports: claims, verdict, recommendation, cautions."""
