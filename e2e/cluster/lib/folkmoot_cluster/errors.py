"""Errors, named by what the caller can do about them; the exit code is part of the name's meaning.

ClusterError            exit 1  something did not work; the message says what and where the log is
+-- MissingRequirement  exit 3  this machine lacks something that cannot be installed from here
+-- NotSupported        exit 4  this driver cannot do what was asked
+-- CommandFailed       exit 1  a program that was run ended badly
"""

from collections.abc import Sequence


class ClusterError(Exception):
    """Something did not work; the message is for the person at the terminal."""

    code = 1


class MissingRequirement(ClusterError):
    """This machine lacks something that cannot be installed from here."""

    code = 3


class NotSupported(ClusterError):
    """This driver cannot do what was asked."""

    code = 4


class CommandFailed(ClusterError):
    """A program that was run ended badly; keeps the end of what it said."""

    def __init__(self, argv: Sequence[str], status: int, said: str) -> None:
        self.status = status
        self.said = said
        tail = "\n".join(said.strip().splitlines()[-12:])
        super().__init__(f"{' '.join(argv[:4])} ended with {status}:\n{tail}")
