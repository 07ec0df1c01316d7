"""Small things about folders that more than one module needs."""

from pathlib import Path


def remove_if_empty(folder: Path) -> None:
    """Leave nothing behind, but only what is nobody else's."""
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()
