"""The agent process: a mailbox on the bus, one task at a time, model calls through the broker, tools in its sandbox.

It stays under 60 MB: no vendor SDK, no web server. Nothing is imported here.
"""
