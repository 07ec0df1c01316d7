"""Two instances on one machine must not share anything that is theirs."""

import ipaddress
from pathlib import Path

import pytest
from folkmoot_cluster import names
from folkmoot_cluster.errors import ClusterError


def make(name: str, **more: str) -> names.Instance:
    return names.instance({"HOME": "/home/ada", "FOLKMOOT_CLUSTER": name, **more})


def test_the_default_is_demo_below_the_home_folder() -> None:
    instance = names.instance({"HOME": "/home/ada"})
    assert instance.name == "demo"
    assert instance.state == Path("/home/ada/.local/state/folkmoot/demo")
    assert instance.cache == Path("/home/ada/.cache/folkmoot")
    assert instance.run == Path("/run/folkmoot/demo")


def test_xdg_folders_go_ahead_of_the_home_folder() -> None:
    instance = make("ci", XDG_STATE_HOME="/s", XDG_CACHE_HOME="/c")
    assert (instance.state, instance.cache) == (Path("/s/folkmoot/ci"), Path("/c/folkmoot"))


def test_the_cache_is_shared_and_everything_else_is_not() -> None:
    one, two = make("one"), make("two")
    assert one.cache == two.cache
    for field in ("state", "run", "node_name", "cgroup", "net_namespace", "mount_namespace", "containerd_socket"):
        assert getattr(one, field) != getattr(two, field), field
    assert one.port != two.port


@pytest.mark.parametrize("name", ["", "A", "-a", "a-", "a_b", "a/b", "..", "a" * 21, "a b", "ä", "a\n"])
def test_names_that_would_not_be_safe_in_paths_are_refused(name: str) -> None:
    if name == "":
        assert make(name).name == "demo"
        return
    with pytest.raises(ClusterError, match="FOLKMOOT_CLUSTER"):
        make(name)


@pytest.mark.parametrize("name", ["demo", "a", "test-run-7", "z" * 20])
def test_addresses_are_valid_and_do_not_overlap(name: str) -> None:
    instance = make(name)
    blocks = [instance.node_network, instance.pod_network, instance.service_network]
    networks = [ipaddress.ip_network(block) for block in blocks]
    for index, network in enumerate(networks):
        assert network.is_private
        assert not any(network.overlaps(other) for other in networks[index + 1 :])
    assert ipaddress.ip_address(instance.node_address) in networks[0]
    for address in (instance.api_service_address, instance.dns_address):
        assert ipaddress.ip_address(address) in networks[2]
    assert 20000 <= instance.port < 28000


def test_the_longest_socket_fits_into_what_the_kernel_allows() -> None:
    instance = make("z" * 20)
    longest = max(len(str(path)) for path in (instance.containerd_socket, instance.gate_socket))
    assert longest + len(".ttrpc") < 108


@pytest.mark.parametrize(
    ("path", "expected"), [("/var/lib/x", True), ("/run/x", True), ("/root/.cache", False), ("/var/library", False)]
)
def test_paths_out_of_sight_in_the_mount_namespace(path: str, expected: bool) -> None:
    assert names.hidden(Path(path)) is expected
