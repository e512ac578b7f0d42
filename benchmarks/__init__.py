"""Scripts that print what the project claims."""
