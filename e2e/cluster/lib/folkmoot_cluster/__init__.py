"""A real Kubernetes for the tests and the demo: one face over three drivers.

Called by the executables in `e2e/cluster`; standard library only, because it runs before any virtual
environment exists. It is test equipment: nothing in the product imports it.

    cli -> drivers.{given,kind,embedded} -> (build, images, kernel, processes, kube, host) -> shell
    names, keys, configuration, scratch: pure, they compute and touch nothing
"""
