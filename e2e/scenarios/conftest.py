"""One cluster and one installation for all scenarios. e2e/scenarios/run brings the cluster up and takes it down."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from stage import install, tenants
from stage.cluster import Cluster
from stage.shell import NotHere
from stage.tenants import DEMO


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All of these need the cluster, and none of them is quick."""
    here = Path(__file__).parent
    for item in items:
        if item.path.is_relative_to(here):
            item.add_marker(pytest.mark.e2e)
            if not item.get_closest_marker("timeout"):
                item.add_marker(pytest.mark.timeout(900))


@pytest.fixture(scope="session")
def cluster() -> Cluster:
    """The cluster that FOLKMOOT_CLUSTER names."""
    name = os.environ.get("FOLKMOOT_CLUSTER")
    if not name:
        _cannot("no cluster: these run by `make e2e`, which brings one up, or with FOLKMOOT_CLUSTER=<one that is up>")
    found = Cluster(name or "")
    try:
        found.up()
    except NotHere as error:
        _cannot(str(error))
    return found


def _cannot(why: str) -> None:
    if os.environ.get("CI"):
        pytest.fail(why)
    pytest.skip(why)


@pytest.fixture(scope="session")
def installed(cluster: Cluster) -> Cluster:
    """Images, simulator, charts."""
    install.kinds(cluster)
    install.images(cluster)
    install.simulator(cluster, (DEMO / "scenario.yaml").read_text())
    install.operator(cluster)
    return cluster


@pytest.fixture(scope="session")
def moot(installed: Cluster) -> Cluster:
    """The demo's two tenants, Ready, and the program."""
    tenants.apply(installed, tenants.everything())
    installed.apply(tenants.program_config_map("folkmoot-acme"))
    return installed
