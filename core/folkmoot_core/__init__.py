"""The pure core of Folkmoot: what things are and what should happen.

Everything here is a function of its arguments: no I/O, no clock, no randomness, no asyncio. The operator, the
runtime and the CLI stand on it and gather before, act after. It imports pydantic, cryptography and PyJWT only.
"""
