"""The cluster's library runs before any virtual environment exists: it is not installed but found by its path."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "e2e" / "cluster" / "lib"))
