"""What the user asks for: the schema, how it is loaded, and the trials it means."""
