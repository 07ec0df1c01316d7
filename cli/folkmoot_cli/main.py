"""The command line: `folkmoot …`, and the same as `kubectl folkmoot …`.

Exit codes: 0 done, 1 the answer is no (a log that does not verify, a session that failed), 2 wrong usage, 3 something needed
is missing or does not answer. Each subcommand's module is imported only when it is asked for, so that `--help` is quick.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence

from folkmoot_core.errors import FolkmootError

COMMANDS: tuple[tuple[str, str, str], ...] = (
    ("session", "folkmoot_cli.session", "run, list, watch and show sessions"),
    ("verify", "folkmoot_cli.verify", "check a log directory, an exported bundle or a URL, offline where possible"),
    ("ledger", "folkmoot_cli.ledger", "read, search, prove and export a tenant's log; what it covers of the law; erase and hold"),
    ("identity", "folkmoot_cli.identity", "seed and commitment from manifests, and why two differ"),
    ("dev", "folkmoot_cli.dev.command", "run a directory of manifests on this machine, without a cluster"),
)


def main(argv: Sequence[str] | None = None) -> int:
    """Parse, run, say what went wrong in one sentence."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    parser = argparse.ArgumentParser(prog="folkmoot", description="Councils of agents that decide on record.")
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    wanted = next((a for a in arguments if not a.startswith("-")), None)
    for name, module, summary in COMMANDS:
        if name == wanted:
            importlib.import_module(module).add_parser(subparsers, summary)
        else:
            subparsers.add_parser(name, help=summary, add_help=False)
    parsed = parser.parse_args(arguments)
    try:
        return int(parsed.run(parsed))
    except FolkmootError as error:
        sys.stderr.write(f"folkmoot {parsed.command}: {error.message}\n")
        return 3
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        return 0


if __name__ == "__main__":
    sys.exit(main())
