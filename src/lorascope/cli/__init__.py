"""Command line: one small file per command, with heavy imports inside the command."""

from lorascope.cli.app import main

__all__ = ["main"]
