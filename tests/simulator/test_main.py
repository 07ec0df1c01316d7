"""The process: it starts, serves, and stops when told; and what the README shows is true."""

import asyncio
import os
import re
import signal
import sys
from pathlib import Path

import httpx2

from simulator.scenario import load

FOLDER = Path(__file__).parents[2] / "e2e" / "simulator"


async def run(scenario: Path) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "simulator", "--scenario", str(scenario), "--port", "0"),
        env={**os.environ, "PYTHONPATH": str(FOLDER)},
        stderr=asyncio.subprocess.PIPE,
    )


async def test_it_serves_until_it_is_told_to_stop(tmp_path: Path) -> None:
    scenario = tmp_path / "scenario.yaml"
    scenario.write_text("name: s\nrules: [{id: r, reply: {text: hi}}]")
    process = await run(scenario)
    assert process.stderr is not None
    line = (await process.stderr.readline()).decode()
    found = re.search(r"serving scenario=s rules=1 host=127\.0\.0\.1 port=(\d+)", line)
    assert found is not None, line
    async with httpx2.AsyncClient(trust_env=False) as client:
        assert (await client.get(f"http://127.0.0.1:{found[1]}/healthz")).json()["status"] == "ok"
    process.send_signal(signal.SIGTERM)
    await process.communicate()
    assert process.returncode == 0


async def test_a_scenario_that_is_not_usable_is_explained(tmp_path: Path) -> None:
    scenario = tmp_path / "scenario.yaml"
    scenario.write_text("name: s\nrules: [{id: r, reply: {text: hi}, delai: 1}]")
    for path, words in ((scenario, b"rule 'r'.delai: unknown field"), (tmp_path / "absent.yaml", b"scenario: ")):
        process = await run(path)
        _, errors = await process.communicate()
        assert process.returncode == 2
        assert errors.startswith(words)


def test_the_scenarios_of_the_readme_load() -> None:
    snippets = re.findall(r"```yaml\n(.*?)```", (FOLDER / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    assert snippets
    for snippet in snippets:
        load(snippet)
