"""Fields of a study, one module a subject; ``spec.schema`` joins them to the StudySpec."""
