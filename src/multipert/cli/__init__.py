"""The command line."""

from multipert.cli.app import main

__all__ = ["main"]
