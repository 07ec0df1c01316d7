"""Tile names, which tiles a size has, and the tree as rows of tiles."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from folkmoot_core.errors import Invalid
from folkmoot_core.ledger import tiles, tree
from folkmoot_core.ledger.tiles import ENTRIES, WIDTH, Rows, Tile

LEAVES = [tree.leaf_hash(b"%d" % i) for i in range(1000)]


@pytest.mark.parametrize(
    ("tile", "path"),
    [
        (Tile(0, 5), "tile/0/005"),
        (Tile(0, 1234), "tile/0/x001/234"),
        (Tile(1, 1234067), "tile/1/x001/x234/067"),
        (Tile(ENTRIES, 0, 3), "tile/entries/000.p/3"),
        (Tile(63, 999, 255), "tile/63/999.p/255"),
        (Tile(2, 1000), "tile/2/x001/000"),
    ],
)
def test_paths_as_the_specification_prints_them(tile: Tile, path: str) -> None:
    assert tile.path() == path
    assert tiles.parse(path) == tile


@given(st.integers(-1, 63), st.integers(0, tiles.MAX_INDEX - 1), st.integers(1, 256))
def test_every_tile_has_one_path(level: int, index: int, width: int) -> None:
    tile = Tile(level, index, width)
    assert tiles.parse(tile.path()) == tile


@pytest.mark.parametrize(
    "path",
    [
        "tile/0/5",
        "tile/0/0005",
        "tile/0/x000/005",
        "tile/00/005",
        "tile/64/005",
        "tile/0/005.p/0",
        "tile/0/005.p/256",
        "tile/0/005.p/01",
        "tile/0/005.p/999",
        "tile/-1/005",
        "tile/data/005",
        "/tile/0/005",
        "tile/0/005/",
        "tile/0/../005",
        "tile/0/x1234/067",
        "",
        "tile/0/٠٠٥",
        "tile/0/" + "x999/" * 7 + "999",
        "tile/entries/000.p/3\n",
        "tile/0/x072/x057/x594/x037/x927/x936",
    ],
)
def test_other_spellings_are_refused(path: str) -> None:
    with pytest.raises(Invalid):
        tiles.parse(path)


@given(st.text(max_size=80))
def test_parsing_raises_our_error_alone(path: str) -> None:
    try:
        tile = tiles.parse(f"tile/{path}")
    except Invalid:
        return
    assert tile.path() == f"tile/{path}"


def test_which_tiles_a_size_has() -> None:
    def shape(size: int) -> dict[int, tuple[int, int]]:
        found: dict[int, tuple[int, int]] = {}
        for tile in tiles.tiles_of(size):
            full, partial = found.get(tile.level, (0, 0))
            found[tile.level] = (full + 1, partial) if tile.width == WIDTH else (full, tile.width)
        return found

    assert shape(0) == {}
    assert shape(1) == {ENTRIES: (0, 1), 0: (0, 1)}
    assert shape(256) == {ENTRIES: (1, 0), 0: (1, 0), 1: (0, 1)}
    assert shape(65_536) == {ENTRIES: (256, 0), 0: (256, 0), 1: (1, 0), 2: (0, 1)}
    assert shape(70_000) == {ENTRIES: (273, 112), 0: (273, 112), 1: (1, 17), 2: (0, 1)}


def test_a_static_directory_ends_with_its_checkpoint() -> None:
    paths = list(tiles.paths_of(257))
    assert paths[0] == "log.vkey"
    assert paths[-1] == "checkpoint"
    assert set(paths[1:-1]) == {
        "tile/entries/000", "tile/entries/001.p/1", "tile/0/000", "tile/0/001.p/1", "tile/1/000.p/1",
    }  # fmt: skip


@given(st.lists(st.integers(1, 300), max_size=6))
def test_rows_do_not_depend_on_how_leaves_arrive(steps: list[int]) -> None:
    steps = [min(step, len(LEAVES) // 6) for step in steps]
    rows, at = Rows(), 0
    for step in steps:
        rows.extend(LEAVES[at : at + step])
        at += step
        assert len(rows) == at
        assert rows.root() == tree.root_of(LEAVES[:at])
    for tile in tiles.tiles_of(at):
        if tile.level == 0:
            start = tile.index * WIDTH
            assert rows.tile(tile) == b"".join(LEAVES[start : start + tile.width])
        elif tile.level == 1:
            expected = [tree.root_of(LEAVES[i * WIDTH : (i + 1) * WIDTH]) for i in range(tile.width)]
            assert rows.tile(tile) == b"".join(expected)


def test_rows_know_the_root_of_every_prefix() -> None:
    rows = Rows()
    rows.extend(LEAVES)
    for size in (*range(20), 255, 256, 257, 511, 512, 513, 768, 999, 1000):
        assert rows.root(size) == tree.root_of(LEAVES[:size])


def test_rows_give_no_tile_that_is_not_filled() -> None:
    rows = Rows()
    rows.extend(LEAVES[:257])
    assert rows.tile(Tile(0, 1, 2)) is None
    assert rows.tile(Tile(0, 2, 1)) is None
    assert rows.tile(Tile(1, 0, 1)) is not None
    assert rows.tile(Tile(1, 0)) is None
    assert rows.tile(Tile(2, 0, 1)) is None
    assert rows.tile(Tile(ENTRIES, 0)) is None
    for level, index in ((0, 257), (8, 1), (16, 0)):
        with pytest.raises(Invalid):
            rows.node(level, index)
    for size in (-1, 258):
        with pytest.raises(Invalid):
            rows.root(size)
