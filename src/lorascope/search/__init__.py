"""The search: what to train, measure and analyse next, and when to stop. Pure functions of the study and records."""
