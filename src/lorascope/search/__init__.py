"""What is trained next, and when it stops: pure functions of the study and its records."""
