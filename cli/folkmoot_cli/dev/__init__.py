"""`folkmoot dev DIR`: the same manifests without a cluster, on this machine. architecture.md §6.

It runs the pure plans, starts the same processes as in the pods, and stands in for the operator's endpoint (tokens,
certificates, reports) and nothing else.
"""
