"""Arithmetic of the audit log: Merkle tree, tiles, bundles, signed notes, checkpoints, entry bytes. No I/O, no clock.

The formats are C2SP's (tlog-tiles, tlog-checkpoint, signed-note) over RFC 6962 hashes, so that tools which are not ours
verify the log. Used by the ledger, which writes, and by the CLI, which checks.
"""
