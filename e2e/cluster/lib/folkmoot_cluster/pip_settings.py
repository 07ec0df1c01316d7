"""This machine's pip settings as mounts for a build: one pip.conf made from all sources, and the files it speaks of.

Values are never printed: an index's address may hold a password.
"""

import ast
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

CERTIFICATES = Path("/etc/ssl/certs")


def mounts(folder: Path) -> list[str]:
    """Values for buildah's --volume; the pip.conf is written to `folder`, which must outlive the build."""
    settings = parse(_listing())
    path = folder / "pip.conf"
    path.touch(mode=0o600)
    path.write_text(render(settings))
    wanted = [f"{path}:/etc/pip.conf:ro"]
    if CERTIFICATES.is_dir():
        wanted.append(f"{CERTIFICATES}:{CERTIFICATES}:ro")
    return wanted + [f"{each}:{each}:ro" for each in local_paths(settings) if each.exists()]


def _listing() -> str:
    """`pip config list`, which merges files and environment; empty where there is no pip."""
    words = [sys.executable, "-m", "pip", "config", "list"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    return done.stdout if done.returncode == 0 else ""


def parse(listing: str) -> dict[str, str]:
    """`section.key='value'` lines; later sources win, and pip lists the environment's as `:env:`, which beats files.

    Settings of one command (`install.…`) are taken as global: a build does nothing but install.
    """
    files: dict[str, str] = {}
    environment: dict[str, str] = {}
    for line in listing.splitlines():
        name, separator, value = line.partition("=")
        section, dot, option = name.rpartition(".")
        if not separator or not dot:
            continue
        target = environment if section == ":env:" else files
        target[option] = str(ast.literal_eval(value))
    return {**files, **environment}


def render(settings: dict[str, str]) -> str:
    """A pip.conf; a value of several lines is indented, as pip writes it."""
    lines = ["[global]"]
    for option in sorted(settings):
        value = "\n    ".join(settings[option].splitlines())
        lines.append(f"{option} = {value}")
    return "\n".join(lines) + "\n"


def local_paths(settings: dict[str, str]) -> Iterable[Path]:
    """Files and folders of this machine that the settings speak of and that are not mounted anyway."""
    for option in ("cert", "client-cert", "find-links"):
        for word in settings.get(option, "").split():
            path = Path(word)
            if path.is_absolute() and not path.is_relative_to(CERTIFICATES):
                yield path
