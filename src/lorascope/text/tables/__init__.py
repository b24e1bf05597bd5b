"""Tables of a summary as people read them, for report, page and terminal."""
