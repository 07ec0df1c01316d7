"""Configuration, manifests, images and pip settings: what can be said of them without a cluster."""

import io
import json
import os
import sys
import tarfile
import time
import tomllib
from pathlib import Path

import pytest
from folkmoot_cluster import build, configuration, containers, manifests, names, pip_settings, processes, scratch

INSTANCE = names.instance({"HOME": "/home/ada", "FOLKMOOT_CLUSTER": "ci"})


def test_every_configuration_file_is_well_formed() -> None:
    for path, text in configuration.files(INSTANCE, "pause:1").items():
        assert path.is_relative_to(INSTANCE.configuration)
        if path.suffix == ".toml":
            tomllib.loads(text)
        elif path.suffix != ".conf":
            json.loads(text)


def test_containerd_has_the_settings_without_which_no_container_starts() -> None:
    plugins = tomllib.loads(configuration.containerd(INSTANCE, "pause:1"))["plugins"]
    cri = plugins["io.containerd.grpc.v1.cri"]
    assert cri["sandbox_image"] == "pause:1"
    assert cri["restrict_oom_score_adj"] is True
    assert cri["netns_mounts_under_state_dir"] is True


def test_the_gate_is_the_last_plugin_of_the_chain() -> None:
    plugins = json.loads(configuration.cni(INSTANCE))["plugins"]
    assert [plugin["type"] for plugin in plugins] == ["bridge", "portmap", "gate"]
    assert plugins[-1]["socket"] == str(INSTANCE.gate_socket)


def test_pods_and_kubelet_agree_on_dns_and_cgroup() -> None:
    kubelet = json.loads(configuration.kubelet(INSTANCE))
    service = next(each for path, each in manifests.embedded(INSTANCE, "dns:1") if path.endswith("/services/kube-dns"))
    assert kubelet["clusterDNS"] == [service["spec"]["clusterIP"]]
    assert kubelet["cgroupRoot"] == f"/{INSTANCE.cgroup}"


def test_manifests_are_applied_at_the_path_of_their_name() -> None:
    for path, manifest in manifests.embedded(INSTANCE, "dns:1"):
        assert path.rsplit("/", 1)[1] == manifest["metadata"]["name"]


def test_the_storage_class_is_the_default_one() -> None:
    made = manifests.storage_class()
    assert made["metadata"]["name"] == "folkmoot-local"
    assert made["metadata"]["annotations"]["storageclass.kubernetes.io/is-default-class"] == "true"


def test_versions_are_pinned_in_the_modules() -> None:
    assert build.kubernetes_version().startswith("v1.34.")
    assert build.coredns_image().startswith("folkmoot.local/coredns:v")


def test_a_scratch_image_is_the_same_every_time_and_holds_its_binary() -> None:
    archive = scratch.archive("x:1", b"\x7fELF", "pause")
    assert archive == scratch.archive("x:1", b"\x7fELF", "pause")
    with tarfile.open(fileobj=io.BytesIO(archive)) as outer:
        layer = outer.extractfile("layer.tar")
        assert layer is not None
        with tarfile.open(fileobj=layer) as inner:
            (entry,) = inner.getmembers()
            assert (entry.name, entry.mode, entry.size) == ("pause", 0o755, 4)


def test_archives_of_images_have_names_of_their_own() -> None:
    found = {containers.archive_of(Path("/c"), name) for name in ("a/b:1", "a/b:2", "a/c:1")}
    assert len(found) == 3
    assert all(path.parent == Path("/c/images") for path in found)


def test_the_environment_goes_ahead_of_pip_s_files() -> None:
    listing = ":env:.cert='/etc/ssl/certs/ca.crt'\nglobal.cert='/old.crt'\nglobal.timeout='5'\nnonsense\n"
    assert pip_settings.parse(listing) == {"cert": "/etc/ssl/certs/ca.crt", "timeout": "5"}


def test_a_pip_conf_of_several_values_is_indented() -> None:
    assert pip_settings.render({"find-links": "/a\n/b"}) == "[global]\nfind-links = /a\n    /b\n"


def test_only_files_of_this_machine_are_mounted() -> None:
    settings = {"cert": "/etc/ssl/certs/ca.crt", "client-cert": "/opt/me.pem", "find-links": "https://x/ /opt/wheels"}
    assert list(pip_settings.local_paths(settings)) == [Path("/opt/me.pem"), Path("/opt/wheels")]


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_process_is_ended_by_its_record_and_a_stranger_is_not(tmp_path: Path) -> None:
    log = tmp_path / "log"
    process = processes.start(tmp_path, "sleeper", ["sleep", "60"], log)
    stranger = processes.Process("stranger", process.pid, process.started - 1)  # same pid, other start
    assert processes.alive(process)
    assert not processes.alive(stranger)
    assert processes.stop(tmp_path, [stranger]) == []
    assert processes.recorded(tmp_path) == [process]
    assert processes.stop(tmp_path, [process]) == [process]
    deadline = time.monotonic() + 2
    while processes.alive(process) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not processes.alive(process)
    assert processes.recorded(tmp_path) == []
    os.waitpid(process.pid, 0)
