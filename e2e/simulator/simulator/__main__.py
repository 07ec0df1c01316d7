"""`python3 -m simulator --scenario FILE [--host H] [--port P]`: runs the simulator until SIGTERM or SIGINT."""

from __future__ import annotations

import argparse
import asyncio
import logging
import signal
import sys
from pathlib import Path

from simulator.app import App
from simulator.scenario import Scenario, ScenarioError, load
from simulator.server import Server

logger = logging.getLogger("simulator")


def main() -> int:
    """Exit status 2 when the scenario is not usable, with one line per problem on standard error."""
    parser = argparse.ArgumentParser(prog="simulator", description="Speaks four vendors' wire formats from a scenario.")
    parser.add_argument("--scenario", required=True, type=Path)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", default=8080, type=int)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    try:
        scenario = load(arguments.scenario.read_text(encoding="utf-8"))
    except OSError as error:
        sys.stderr.write(f"scenario: {error}\n")
        return 2
    except ScenarioError as error:
        sys.stderr.write("".join(f"{problem}\n" for problem in error.problems))
        return 2
    asyncio.run(_run(scenario, arguments.host, arguments.port))
    return 0


async def _run(scenario: Scenario, host: str, port: int) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    server = Server(App(scenario))
    await server.start(host, port)
    logger.info("serving scenario=%s rules=%d host=%s port=%d", scenario.name, len(scenario.rules), host, server.port)
    await stop.wait()
    await server.close()


if __name__ == "__main__":
    sys.exit(main())
