"""The command line: one small file a command, heavy imports inside the command."""

from lorascope.cli.app import main

__all__ = ["main"]
