"""Damaged parts and unwilling disks: noticed, named, set aside, and never answered from."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from regime.errors import StoreError
from regime.serving.store import ForecastStore, StoreKey
from tests.regime.stores import (
    KEY,
    OTHER_KEY,
    answer,
    ended,
    fill,
    filled,
    held,
    leftovers,
    part_of,
    part_paths,
    process,
    window,
)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def flip_a_bit_of_a_forecast(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[content.index(answer(12).tobytes()) + 50] ^= 0x10
    path.write_bytes(content)


def flip_a_bit_of_a_window(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[content.index(window(12)) + 5] ^= 0x01
    path.write_bytes(content)


def fill_with_garbage(path: Path) -> None:
    path.write_bytes(np.random.default_rng(1).bytes(path.stat().st_size))


def empty(path: Path) -> None:
    path.write_bytes(b"")


def put_a_foreign_part_there(path: Path) -> None:
    filled(path.parent.parent / "other", range(10, 20), key=OTHER_KEY)
    (foreign,) = part_paths(path.parent.parent / "other", OTHER_KEY)
    shutil.copy(foreign, path)


def put_another_table_there(path: Path) -> None:
    footer = pq.read_metadata(path).metadata
    pq.write_table(pa.table({"window": [window(12)], "price": [1.0]}).replace_schema_metadata(footer), path)


def edit_a_forecast(path: Path) -> None:
    """With pages whose checksums are right."""
    table = pq.read_table(path)
    rows = table["quantiles"].to_pylist()
    rows[2] = answer(13).tobytes()
    pq.write_table(table.set_column(1, table.schema.field(1), pa.array(rows, type=pa.binary(144))), path)


def edit_a_window(path: Path) -> None:
    table = pq.read_table(path)
    rows = table["window"].to_pylist()
    rows[2] = window(99)
    pq.write_table(table.set_column(0, table.schema.field(0), pa.array(rows, type=pa.binary(16))), path)


def put_rows_of_another_width_there(path: Path) -> None:
    table = pq.read_table(path)
    wide = pa.array([bytes(999)] * len(table), type=pa.binary(999))
    pq.write_table(table.set_column(1, "quantiles", wide), path)


DAMAGES = [
    truncate,
    flip_a_bit_of_a_forecast,
    flip_a_bit_of_a_window,
    fill_with_garbage,
    empty,
    put_a_foreign_part_there,
    put_another_table_there,
    edit_a_forecast,
    edit_a_window,
    put_rows_of_another_width_there,
]


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("late", [False, True], ids=["before opening", "after opening"])
def test_a_damaged_part_is_set_aside_named_and_made_again(
    tmp_path: Path, damage: Callable[[Path], None], late: bool
) -> None:
    store = filled(tmp_path, range(10), range(10, 20), range(20, 30))
    part = part_of(tmp_path, 12)
    damage(part)
    content = part.read_bytes()
    if not late:
        store = ForecastStore(tmp_path, KEY)

    assert held(store, [*range(30), 99]) == [*range(10), *range(20, 30)]
    assert window(12) not in store
    assert len(store) == 20
    (line,) = store.damaged
    assert str(part) in line
    assert not part.exists()
    assert part.with_name(f"{part.name}.damaged").read_bytes() == content
    assert f"{part.name}.damaged" in line

    assert fill(store, range(30)) == 10
    for again in (store, ForecastStore(tmp_path, KEY)):
        assert held(again, range(30)) == list(range(30))
    assert not again.damaged


def test_a_part_replaced_by_another_whole_one_is_not_believed(tmp_path: Path) -> None:
    store = filled(tmp_path, range(10))
    filled(tmp_path / "elsewhere", range(10, 20))
    (part,) = part_paths(tmp_path)
    shutil.copy(part_of(tmp_path / "elsewhere", 12), part)
    assert held(store, range(20)) == []
    assert len(store.damaged) == 1


def test_pages_carry_checksums_that_any_reader_of_parquet_can_verify(tmp_path: Path) -> None:
    filled(tmp_path, range(10, 20))
    (part,) = part_paths(tmp_path)
    assert len(pq.read_table(part, page_checksum_verification=True)) == 10
    flip_a_bit_of_a_forecast(part)
    with pytest.raises(OSError, match="CRC"):
        pq.read_table(part, page_checksum_verification=True)


def test_the_same_part_damaged_twice_leaves_both_to_be_looked_at(tmp_path: Path) -> None:
    filled(tmp_path, range(5))
    (part,) = part_paths(tmp_path)
    for content in (b"first", b"second"):
        part.write_bytes(content)
        assert len(ForecastStore(tmp_path, KEY).damaged) == 1
    assert {path.read_bytes() for path in part.parent.glob("*.damaged*")} == {b"first", b"second"}


def test_one_flipped_bit_in_any_byte_is_noticed_or_changes_nothing(tmp_path: Path) -> None:
    filled(tmp_path, range(3))
    (part,) = part_paths(tmp_path)
    sound = part.read_bytes()
    noticed = 0
    for position in range(len(sound)):
        content = bytearray(sound)
        content[position] ^= 1 << position % 8
        part.write_bytes(content)
        store = ForecastStore(tmp_path, KEY)
        assert held(store, range(3)) == ([] if store.damaged else list(range(3))), position
        noticed += len(store.damaged)
        for path in part.parent.glob("*.damaged*"):
            path.unlink()
    assert noticed > len(sound) / 2


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b'{"engine": "another"}'])
def test_a_damaged_key_file_is_set_aside_and_written_anew(tmp_path: Path, content: bytes) -> None:
    filled(tmp_path, range(5))
    path = tmp_path / KEY.digest / "key.json"
    path.write_bytes(content)
    store = ForecastStore(tmp_path, KEY)
    assert held(store, range(5)) == list(range(5))
    assert StoreKey.from_json(path.read_text()) == KEY
    assert len(store.damaged) == 1
    assert str(path) in store.damaged[0]
    assert path.with_name("key.json.damaged").read_bytes() == content


def test_parts_that_vanish_under_a_reader_are_missed_without_a_complaint(tmp_path: Path) -> None:
    store = filled(tmp_path, range(10), range(10, 20))
    part_of(tmp_path, 12).unlink()
    assert held(store, range(20)) == list(range(10))
    assert len(store) == 10
    shutil.rmtree(tmp_path)
    assert held(store, range(20)) == list(range(10)), "what is in memory is still right"
    assert fill(store, range(10, 20)) == 10
    assert held(ForecastStore(tmp_path, KEY), range(20)) == list(range(10, 20))
    assert not store.damaged


# --- a disk that does not take it -----------------------------------------------------------------------------


@pytest.mark.parametrize("below", ["", "deeper/still"])
def test_a_file_in_the_place_of_the_store_is_empty_to_read_and_refuses_to_be_written(
    tmp_path: Path, below: str
) -> None:
    (tmp_path / "file").write_text("precious")
    store = ForecastStore(tmp_path / "file" / below, KEY)
    assert store.get(window(1)) is None
    with pytest.raises(
        StoreError, match=r"could not be kept \(.*file.* is no directory\); choose another .*SAGE_STORE"
    ):
        fill(store, range(5))
    assert len(store) == 0
    assert store.get(window(1)) is None
    assert (tmp_path / "file").read_text() == "precious"


def test_a_disk_that_takes_no_more_leaves_no_trace_and_what_was_there_is_still_read(tmp_path: Path) -> None:
    code = (
        "import resource\n"
        "store = ForecastStore(Path(arguments[0]), KEY)\n"
        "fill(store, range(10))\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))\n"
        "try:\n"
        "    fill(store, range(10, 1000))\n"
        "except StoreError as error:\n"
        "    print(len(store), held(store, range(1000)) == list(range(10)), error)\n"
    )
    status, output = ended(process(code, tmp_path))
    assert status == 0
    assert output.startswith(f"10 True {tmp_path / KEY.digest}: 990 forecasts could not be kept (File too large)")
    assert not leftovers(tmp_path)
    assert held(ForecastStore(tmp_path, KEY), range(20)) == list(range(10))


def test_a_store_that_may_only_be_read_is_read(tmp_path_factory: pytest.TempPathFactory) -> None:
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        root.chmod(0o755)  # for a user who is not root
        filled(root, range(10), range(10, 20), range(20, 30))
        damaged, closed = part_of(root, 15), part_of(root, 25)
        damaged.write_bytes(b"")
        closed.chmod(0)
        (root / KEY.digest).chmod(0o555)
        code = (
            "filled(Path(arguments[1]), range(3)).get(window(1))  # now everything is imported\n"
            "if os.geteuid() == 0:\n"
            "    os.setuid(65534)\n"
            "store = ForecastStore(Path(arguments[0]), KEY)\n"
            "print(held(store, range(30)) == list(range(10)))\n"
            "try:\n"
            "    fill(store, range(40, 50))\n"
            "except StoreError as error:\n"
            "    print(error)\n"
            "print(*store.damaged, sep='\\n')\n"
        )
        status, output = ended(process(code, root, tmp_path_factory.mktemp("warm")))
        (root / KEY.digest).chmod(0o755)
        assert status == 0
        answered, refused, *told = output.splitlines()
        assert answered == "True"
        assert f"{root / KEY.digest}: 10 forecasts could not be kept (Permission denied)" in refused
        assert len(told) == 2
        assert any(str(damaged) in line and "cannot be set aside (Permission denied)" in line for line in told)
        assert any(str(closed) in line and "cannot be read" in line for line in told)
