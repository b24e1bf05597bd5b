"""Training packs of trials over one frozen base."""
