"""The sandbox: runs an agent's tools (or a gate's checks) over one session's workspace. wiring.md §6.

It has no identity, no secret and no way out; it serves one lease at a time, wipes before and after, and kills every process
that a command left behind. `python -m folkmoot_runtime.sandbox`.
"""
