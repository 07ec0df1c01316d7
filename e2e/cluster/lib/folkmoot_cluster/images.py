from dataclasses import dataclass
from pathlib import Path
@dataclass(frozen=True)
class Wanted:
    name: str
    file: str
    context: str
    arguments: tuple[str, ...]
def base(cache: Path) -> str: return ""
def build(cache: Path, wanted: Wanted) -> Path: return cache
