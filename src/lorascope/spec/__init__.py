"""Study specification: schema, loading with all errors at once, presets."""
