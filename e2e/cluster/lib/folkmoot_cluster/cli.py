"""The face: what `up`, `down`, `status`, `kubeconfig`, `load`, `image`, `tool` and `enforcer` take as arguments.

Parses, calls, turns errors into exit codes; every decision is below.
"""

import argparse
import json
import os
import signal
import sys
from collections.abc import Callable, Sequence
from types import FrameType

from . import drivers, images, names, tools
from .errors import ClusterError
from .shell import answer

Command = Callable[[Sequence[str]], int]


def _parser(name: str, about: str) -> argparse.ArgumentParser:
    return argparse.ArgumentParser(prog=f"e2e/cluster/{name}", description=about)


def up(argv: Sequence[str]) -> int:
    parser = _parser("up", "bring the cluster up; does nothing when it is up and healthy")
    parser.add_argument("--no-netpol-enforcer", action="store_true", help="start without enforcing NetworkPolicies")
    options = parser.parse_args(argv)
    driver = drivers.choose(names.instance(os.environ))
    driver.up(enforcer=not options.no_netpol_enforcer)
    answer(str(driver.kubeconfig()))
    return 0


def down(argv: Sequence[str]) -> int:
    _parser("down", "remove the cluster and everything it made on this machine").parse_args(argv)
    drivers.choose(names.instance(os.environ)).down()
    return 0


def status(argv: Sequence[str]) -> int:
    parser = _parser("status", "what runs; exit code 0 only when healthy")
    parser.add_argument("-o", "--output", choices=("text", "json"), default="text")
    options = parser.parse_args(argv)
    found = drivers.choose(names.instance(os.environ)).status()
    if options.output == "json":
        answer(json.dumps(found, indent=2))
    else:
        _answer_status(found)
    return 0 if found["healthy"] else 1


def _answer_status(found: dict[str, object]) -> None:
    for name, value in found.items():
        if name == "processes" and isinstance(value, list):
            for row in value:
                state = "running" if row["running"] else "ENDED"
                answer(f"  {row['name']:<24} {state:<8} pid {row['pid']:<8} {row['memoryMiB']:>5} MiB")
        elif isinstance(value, dict):
            answer(f"{name}: {', '.join(f'{key} {item}' for key, item in value.items())}")
        else:
            answer(f"{name}: {value}")


def kubeconfig(argv: Sequence[str]) -> int:
    _parser("kubeconfig", "print the path of a kubeconfig that works from this machine").parse_args(argv)
    answer(str(drivers.choose(names.instance(os.environ)).kubeconfig()))
    return 0


def load(argv: Sequence[str]) -> int:
    parser = _parser("load", "make images that were built here available to the cluster")
    parser.add_argument("image", nargs="+", help="name given to `image build`, or the path of a docker-archive (*.tar)")
    options = parser.parse_args(argv)
    drivers.choose(names.instance(os.environ)).load(options.image)
    return 0


def enforcer(argv: Sequence[str]) -> int:
    parser = _parser("enforcer", "switch the enforcement of NetworkPolicies")
    parser.add_argument("state", choices=("on", "off"))
    options = parser.parse_args(argv)
    drivers.choose(names.instance(os.environ)).enforcer(on=options.state == "on")
    return 0


def image(argv: Sequence[str]) -> int:
    parser = _parser("image", "build images without a container engine")
    actions = parser.add_subparsers(dest="action", required=True)
    building = actions.add_parser("build", help="build from a Containerfile")
    building.add_argument("name", help="for example folkmoot.local/runtime:dev")
    building.add_argument("--file", required=True, help="the Containerfile")
    building.add_argument("--context", required=True, help="folder that COPY reads from")
    building.add_argument("--build-arg", action="append", default=[], metavar="KEY=VALUE")
    actions.add_parser("base", help="make the base root file system only")
    options = parser.parse_args(argv)
    instance = names.instance(os.environ)
    if options.action == "base":
        answer(images.base(instance.cache))
        return 0
    wanted = images.Wanted(options.name, options.file, options.context, tuple(options.build_arg))
    answer(str(images.build(instance.cache, wanted)))
    return 0


def tool(argv: Sequence[str]) -> int:
    parser = _parser("tool", "print the path of a program, building it if need be")
    parser.add_argument("name", choices=sorted(tools.TOOLS))
    options = parser.parse_args(argv)
    answer(str(tools.path(names.instance(os.environ).cache, options.name)))
    return 0


COMMANDS: dict[str, Command] = {
    "up": up,
    "down": down,
    "status": status,
    "kubeconfig": kubeconfig,
    "load": load,
    "enforcer": enforcer,
    "image": image,
    "tool": tool,
}


def _interrupt(number: int, frame: FrameType | None) -> None:
    """SIGTERM (a test runner's way) is answered like Ctrl-C: the `finally` clauses run."""
    raise KeyboardInterrupt


def main(command: str, argv: Sequence[str]) -> int:
    """Exit codes: 0 done, 1 did not work, 3 this machine lacks something, 4 this driver cannot, 130 interrupted."""
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        return COMMANDS[command](argv)
    except ClusterError as error:
        sys.stderr.write(f"{command}: {error}\n")
        return error.code
    except BrokenPipeError:  # `status | head`: the reader has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        sys.stderr.write(f"{command}: interrupted\n")
        return 130
