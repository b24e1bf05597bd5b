"""The driver of a study: rounds of training, solo runs, analyses after training, and export."""
