"""A model simulator: four vendor wire formats, answered from a scenario file by rules over the request.

Test equipment, never part of a product image. Standard library and PyYAML only, so that it runs in a tiny pod.
The road of one call: `http1` reads it, `app` routes it, a module of `wire` turns it into a `model.Seen`,
`decide` picks the rule, the same wire module renders the `model.Answer`, `server` writes it out.
Everything but `http1`, `server` and `__main__` is free of I/O.
"""
