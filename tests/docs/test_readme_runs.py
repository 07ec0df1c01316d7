"""The README's example is run as it stands: `folkmoot dev` on its manifests, then `folkmoot verify` on what came out."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
LIMIT = 100  # seconds, on a machine that has much else to do
SHELL = [
    (page.name, number, block)
    for page in sorted(ROOT.glob("*.md"))
    for number, block in enumerate(re.findall(r"^```sh\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL))
]


def _blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


async def _folkmoot(*words: str | Path) -> tuple[int | None, str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "folkmoot_cli.main",
        *map(str, words),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        async with asyncio.timeout(LIMIT):
            said, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.terminate()
            await process.wait()
    return process.returncode, said.decode()


async def test_the_example_runs_and_its_log_verifies(tmp_path: Path):
    (manifests,) = _blocks("yaml")
    (tmp_path / "moot.yaml").write_text(manifests)
    code, said = await _folkmoot("dev", tmp_path / "moot.yaml", "--export", tmp_path / "evidence")
    assert code == 0, said
    assert "acme/review-17: Succeeded" in said
    assert "A notice of five years is what would hurt." in said
    code, said = await _folkmoot("verify", tmp_path / "evidence" / "acme.tar")
    assert code == 0, said
    code, said = await _folkmoot("identity", tmp_path / "moot.yaml")
    assert code == 0, said
    assert "acme/reviewer" in said


@pytest.mark.parametrize(("page", "number", "block"), SHELL, ids=lambda value: str(value)[:20].strip())
def test_what_is_to_be_typed_is_shell(page: str, number: int, block: str):
    checked = subprocess.run(["bash", "-n"], input=block, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, f"{page}, block {number}: {checked.stderr}"
