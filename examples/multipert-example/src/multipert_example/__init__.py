"""A model and a metric for multipert; each is imported when it is asked for by name."""
