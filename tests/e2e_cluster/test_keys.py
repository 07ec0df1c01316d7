"""A cache key must change with every input, and with nothing else."""

import pytest
from folkmoot_cluster import keys
from folkmoot_cluster.errors import ClusterError

FILES = {"go.mod": b"module x", "go.sum": b"", "main.go": b"package main", "netpol/render.go": b"package netpol"}


def key(files: dict[str, bytes] = FILES, toolchain: str = "1.26.8", flags: tuple[str, ...] = ("-s",)) -> str:
    return keys.module_key(files, toolchain, flags)


@pytest.mark.parametrize("name", sorted(FILES))
def test_a_changed_input_changes_the_key(name: str) -> None:
    assert key({**FILES, name: FILES[name] + b"!"}) != key()


def test_toolchain_and_flags_are_inputs() -> None:
    assert len({key(), key(toolchain="1.27.0"), key(flags=("-s", "-w")), key(flags=())}) == 4


def test_a_new_file_and_a_new_name_change_the_key() -> None:
    renamed = {("other.go" if name == "main.go" else name): content for name, content in FILES.items()}
    assert len({key(), key({**FILES, "more.go": b""}), key(renamed)}) == 3


@pytest.mark.parametrize("name", ["main_test.go", "README.md", "testdata/x.yaml"])
def test_what_the_compiler_does_not_read_is_no_input(name: str) -> None:
    assert key({**FILES, name: b"anything"}) == key()


def test_order_does_not_matter() -> None:
    assert key(dict(reversed(FILES.items()))) == key()


def test_neighbours_cannot_run_together() -> None:
    assert keys.key({"a": b"bc"}) != keys.key({"ab": b"c"})
    assert keys.key({"a": b"", "b": b"x"}) != keys.key({"a": b"b", "": b"x"})


def test_the_version_is_read_where_it_is_pinned() -> None:
    block = "go 1.24.0\n\nrequire (\n\tk8s.io/kubectl v0.0.0\n\tk8s.io/kubernetes v1.34.4\n)\n"
    assert keys.required_version(block, "k8s.io/kubernetes") == "v1.34.4"
    assert keys.required_version("require k8s.io/kubernetes v1.2.3\n", "k8s.io/kubernetes") == "v1.2.3"


def test_a_version_that_is_not_pinned_is_an_error() -> None:
    with pytest.raises(ClusterError, match="requires no"):
        keys.required_version("require xk8s.io/kubernetes v1.2.3\n", "k8s.io/kubernetes")


@pytest.mark.parametrize(("text", "expected"), [("go1.26.8", (1, 26, 8)), ("v1.34.4\n", (1, 34, 4)), ("1.24", (1, 24))])
def test_versions_compare_as_numbers(text: str, expected: tuple[int, ...]) -> None:
    assert keys.version_tuple(text) == expected


def test_ten_is_newer_than_nine() -> None:
    assert keys.version_tuple("go1.10") > keys.version_tuple("go1.9")
