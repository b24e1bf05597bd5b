"""What each rank costs: time, memory, predictions."""
