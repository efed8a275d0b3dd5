"""What a store holds, and a prune that loses nothing anybody still wants, whoever else is at work."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
import pytest

from regime.errors import StoreError
from regime.serving.merging import MERGED_ROWS
from regime.serving.parts import StoreKey
from regime.serving.store import ForecastStore
from regime.serving.storekeeping import prune, store_info
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

DAY_S = 86_400


def unused_for(root: Path, key: StoreKey, days: float) -> None:
    """Make a key look as if nobody had written or opened it for so long."""
    then = time.time() - days * DAY_S
    for path in (root / key.digest).iterdir():
        os.utime(path, (then, then))


def contents(root: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in root.rglob("*") if path.is_file() and path.name != ".lock"}


# --- info -----------------------------------------------------------------------------------------------------


def test_info_counts_what_is_there(tmp_path: Path) -> None:
    filled(tmp_path, range(10), range(10, 40))
    filled(tmp_path, range(5), key=OTHER_KEY)
    unused_for(tmp_path, KEY, 3)
    other, mine = store_info(tmp_path)
    assert (other.key, other.parts, other.forecasts, other.damaged) == (OTHER_KEY, 1, 5, ())
    assert (mine.key, mine.parts, mine.forecasts, mine.digest) == (KEY, 2, 40, KEY.digest)
    assert mine.size_bytes == sum(path.stat().st_size for path in (tmp_path / KEY.digest).iterdir())
    assert mine.oldest_write_s == mine.newest_write_s == mine.last_use_s
    assert time.time() - mine.last_use_s > 2.9 * DAY_S


def test_opening_a_store_counts_as_use(tmp_path: Path) -> None:
    filled(tmp_path, range(10))
    unused_for(tmp_path, KEY, 3)
    ForecastStore(tmp_path, KEY)
    (summary,) = store_info(tmp_path)
    assert summary.newest_write_s is not None
    assert summary.last_use_s - summary.newest_write_s > 2.9 * DAY_S


def test_info_names_damaged_files_and_changes_nothing(tmp_path: Path) -> None:
    filled(tmp_path, range(5), range(5, 10), range(10, 15))
    set_aside, unnoticed = part_of(tmp_path, 1), part_of(tmp_path, 7)
    set_aside.write_bytes(b"")
    ForecastStore(tmp_path, KEY)
    unnoticed.write_bytes(b"rubbish")
    (tmp_path / KEY.digest / "key.json").write_text("rubbish")
    before = contents(tmp_path)
    (summary,) = store_info(tmp_path)
    assert summary.damaged == (f"{set_aside.name}.damaged", unnoticed.name)
    assert summary.forecasts == 5
    assert summary.key is None
    assert contents(tmp_path) == before


def test_a_missing_store_holds_nothing_and_needs_no_pruning(tmp_path: Path) -> None:
    assert store_info(tmp_path / "nowhere") == []
    assert prune(tmp_path / "nowhere", everything=True).bytes_before == 0
    assert not (tmp_path / "nowhere").exists()


def test_a_file_in_the_place_of_a_store_is_refused_by_name(tmp_path: Path) -> None:
    place = tmp_path / "file"
    place.write_text("precious")
    for refused in (store_info, prune):
        with pytest.raises(StoreError, match=f"{place}: cannot be used"):
            refused(place)
    assert place.read_text() == "precious"


# --- what goes ------------------------------------------------------------------------------------------------


def test_what_was_used_last_stays_longest(tmp_path: Path) -> None:
    filled(tmp_path, range(20))
    filled(tmp_path, range(20), key=OTHER_KEY)
    unused_for(tmp_path, KEY, 2)
    unused_for(tmp_path, OTHER_KEY, 5)
    ForecastStore(tmp_path, OTHER_KEY)  # written first, used last
    other, mine = store_info(tmp_path)

    assert prune(tmp_path, max_bytes=other.size_bytes + mine.size_bytes).removed_parts == 0
    report = prune(tmp_path, max_bytes=other.size_bytes)
    assert (report.removed_keys, report.removed_parts) == ([KEY.digest], 1)
    assert (report.bytes_before, report.bytes_after) == (other.size_bytes + mine.size_bytes, other.size_bytes)
    assert not (tmp_path / KEY.digest).exists()
    assert held(ForecastStore(tmp_path, OTHER_KEY), range(20)) == list(range(20))


def test_of_one_key_the_oldest_parts_go_first(tmp_path: Path) -> None:
    filled(tmp_path, range(10), range(10, 20), range(20, 30))
    for days, number in [(3, 15), (2, 25), (1, 5)]:
        then = time.time() - days * DAY_S
        os.utime(part_of(tmp_path, number), (then, then))
    (summary,) = store_info(tmp_path)
    report = prune(tmp_path, max_bytes=summary.size_bytes - 1)
    assert (report.removed_keys, report.removed_parts) == ([], 1)
    assert held(ForecastStore(tmp_path, KEY), range(30)) == [*range(10), *range(20, 30)]


def test_a_bound_of_no_bytes_leaves_nothing(tmp_path: Path) -> None:
    filled(tmp_path, range(10), range(10, 20))
    filled(tmp_path, range(5), key=OTHER_KEY)
    assert prune(tmp_path, max_bytes=0).bytes_after == 0
    assert contents(tmp_path) == {}


def test_keys_unused_for_too_long_go(tmp_path: Path) -> None:
    filled(tmp_path, range(10))
    filled(tmp_path, range(10), key=OTHER_KEY)
    unused_for(tmp_path, KEY, 10.1)
    unused_for(tmp_path, OTHER_KEY, 9.9)
    assert prune(tmp_path, unused_days=10).removed_keys == [KEY.digest]
    assert [summary.key for summary in store_info(tmp_path)] == [OTHER_KEY]


def test_damaged_and_temporary_files_always_go_and_are_named(tmp_path: Path) -> None:
    filled(tmp_path, range(5), range(5, 10))
    part = part_of(tmp_path, 1)
    part.write_bytes(b"")
    ForecastStore(tmp_path, KEY)
    (tmp_path / KEY.digest / ".tmp-0123").write_text("half of a par")
    report = prune(tmp_path)
    assert report.damaged == [f"{part}.damaged"]
    assert report.removed_temporary == 1
    assert not leftovers(tmp_path)
    assert not list(tmp_path.rglob("*.damaged*"))
    assert held(ForecastStore(tmp_path, KEY), range(10)) == list(range(5, 10))


def test_files_that_are_not_the_stores_are_never_touched(tmp_path: Path) -> None:
    filled(tmp_path, range(5))
    foreign = [tmp_path / "thesis.tex", tmp_path / "photos" / "part-1.parquet", tmp_path / KEY.digest / "notes.damaged"]
    for path in foreign:
        path.parent.mkdir(exist_ok=True)
        path.write_text("precious")
    report = prune(tmp_path, everything=True)
    assert (report.removed_parts, report.removed_keys) == (1, [])
    assert all(path.read_text() == "precious" for path in foreign)
    assert len(ForecastStore(tmp_path, KEY)) == 0


def test_a_dry_run_foretells_and_changes_nothing(tmp_path: Path) -> None:
    filled(tmp_path, range(10), range(10, 20), range(20, 30))
    filled(tmp_path, range(5), key=OTHER_KEY)
    part_of(tmp_path, 15).write_bytes(b"")
    ForecastStore(tmp_path, KEY)
    (tmp_path / KEY.digest / ".tmp-0123").write_text("half of a par")
    unused_for(tmp_path, OTHER_KEY, 9)
    before = contents(tmp_path)
    foretold = prune(tmp_path, unused_days=8, dry_run=True)
    assert contents(tmp_path) == before
    done = prune(tmp_path, unused_days=8)
    for name in ("removed_keys", "removed_parts", "removed_temporary", "damaged", "merged_parts", "merged_into"):
        assert getattr(foretold, name) == getattr(done, name), name
    assert foretold.removed_keys == [OTHER_KEY.digest]
    assert foretold.merged_parts == 2
    assert foretold.bytes_before == done.bytes_before
    assert foretold.bytes_after >= done.bytes_after > 0


def test_progress_counts_the_parts(tmp_path: Path) -> None:
    filled(tmp_path, range(5), range(5, 10))
    filled(tmp_path, range(5), key=OTHER_KEY)
    reached: list[tuple[str, int, int]] = []
    prune(tmp_path, on_progress=lambda *step: reached.append(step))
    assert [total for _, _, total in reached] == [3, 3]
    assert reached[0][1] == 0 < reached[1][1] < 3


# --- merging --------------------------------------------------------------------------------------------------


def test_merging_changes_no_answer_and_is_done_once(tmp_path: Path) -> None:
    filled(tmp_path, *(range(first, first + 7) for first in range(0, 210, 7)))
    report = prune(tmp_path)
    assert (report.merged_parts, report.merged_into) == (30, 1)
    assert len(part_paths(tmp_path)) == 1
    assert report.bytes_after < report.bytes_before
    store = ForecastStore(tmp_path, KEY)
    assert held(store, range(220)) == list(range(210))
    assert not store.damaged
    assert prune(tmp_path).merged_parts == 0


def test_merged_parts_are_bounded_and_large_ones_left_alone(tmp_path: Path) -> None:
    third = MERGED_ROWS // 3
    filled(tmp_path, *(range(first, first + third) for first in range(0, 4 * third, third)), range(10**6, 10**6 + 3000))
    large = part_of(tmp_path, 10**6)
    report = prune(tmp_path)
    assert (report.merged_parts, report.merged_into) == (3, 1)
    assert large.exists()
    assert prune(tmp_path).merged_parts == 0
    assert len(ForecastStore(tmp_path, KEY)) == 4 * third + 3000


def test_where_forecasts_differ_the_one_answered_before_is_kept(tmp_path: Path) -> None:
    """An old small part, then a large one, then a small one; each pair shares windows, and disagrees on them."""
    old, large, young = (ForecastStore(tmp_path, KEY) for _ in range(3))
    fill(old, [1, 2, 3])
    fill(large, [2, 3, 4, 5, *range(100, 3100)], engine=1)
    fill(young, [3, 5, 6], engine=2)
    by_size = sorted(part_paths(tmp_path), key=lambda path: path.stat().st_size)
    for path in by_size[:2]:
        number = 1 if answer(1).tobytes() in path.read_bytes() else 3
        os.utime(path, ns=(number * 10**9, number * 10**9))
    os.utime(by_size[2], ns=(2 * 10**9, 2 * 10**9))
    numbers = [1, 2, 3, 4, 5, 6]
    before = [ForecastStore(tmp_path, KEY).get(window(number)) for number in numbers]
    expected = [answer(1), answer(2), answer(3), answer(4, 1), answer(5, 1), answer(6, 2)]
    assert np.array_equal(np.array(before), np.array(expected))

    reader = ForecastStore(tmp_path, KEY)
    assert (prune(tmp_path).merged_into, len(part_paths(tmp_path))) == (1, 2)
    for store in (reader, ForecastStore(tmp_path, KEY)):
        assert np.array_equal(np.array([store.get(window(number)) for number in numbers]), np.array(expected))


def test_a_reader_follows_a_merge_under_its_hands(tmp_path: Path) -> None:
    store = filled(tmp_path, range(10), range(10, 20), range(20, 30))
    assert held(store, [0]) == [0]
    prune(tmp_path)
    assert held(store, range(30)) == list(range(30))
    assert not store.damaged


def test_merging_sets_damaged_parts_aside_and_keeps_the_rest(tmp_path: Path) -> None:
    filled(tmp_path, range(10), range(10, 20), range(20, 30), range(30, 40))
    no_footer, flipped = part_of(tmp_path, 15), part_of(tmp_path, 25)
    no_footer.write_bytes(b"rubbish")
    content = bytearray(flipped.read_bytes())
    content[content.index(answer(25).tobytes())] ^= 1
    flipped.write_bytes(content)
    report = prune(tmp_path)
    assert sorted(line.partition(":")[0] for line in report.set_aside) == sorted(map(str, [no_footer, flipped]))
    assert flipped.with_name(f"{flipped.name}.damaged").read_bytes() == content
    assert held(ForecastStore(tmp_path, KEY), range(40)) == [*range(10), *range(30, 40)]
    assert len(prune(tmp_path).damaged) == 2


def test_a_prune_killed_between_writing_and_removing_leaves_every_answer(tmp_path: Path) -> None:
    filled(tmp_path, range(10), range(10, 20), range(20, 30))
    code = (
        "real = os.unlink\n"
        "os.unlink = lambda path, **rest: die() if Path(path).name.startswith('part-') else real(path, **rest)\n"
        "prune(Path(arguments[0]))\n"
    )
    status, _ = ended(process(code, tmp_path))
    assert status == -9
    assert len(part_paths(tmp_path)) == 4, "it was not killed in between"
    assert held(ForecastStore(tmp_path, KEY), range(30)) == list(range(30))
    prune(tmp_path)
    (summary,) = store_info(tmp_path)
    assert (summary.parts, summary.forecasts) == (1, 30)
    assert held(ForecastStore(tmp_path, KEY), range(30)) == list(range(30))


# --- other processes ------------------------------------------------------------------------------------------


def test_pruning_again_and_again_while_another_process_writes_loses_nothing(tmp_path: Path) -> None:
    code = (
        "store = ForecastStore(Path(arguments[0]), KEY)\n"
        "for first in range(0, 1000, 10):\n"
        "    fill(store, range(first, first + 10))\n"
        "print(held(store, range(1000)) == list(range(1000)), store.damaged)\n"
    )
    writer = process(code, tmp_path)
    prunes = 0
    while writer.poll() is None:
        prune(tmp_path)
        prunes += 1
    assert ended(writer) == (0, "True []\n")
    assert prunes > 1
    prune(tmp_path)
    assert len(part_paths(tmp_path)) == 1
    assert held(ForecastStore(tmp_path, KEY), range(1000)) == list(range(1000))


def test_two_prunes_at_once_do_not_collide(tmp_path: Path) -> None:
    filled(tmp_path, *(range(first, first + 5) for first in range(0, 200, 5)))
    both = [process("print(prune(Path(arguments[0])).set_aside)", tmp_path) for _ in range(2)]
    assert [ended(running) for running in both] == [(0, "[]\n")] * 2
    (summary,) = store_info(tmp_path)
    assert (summary.parts, summary.forecasts, summary.damaged) == (1, 200, ())


def test_a_prune_waits_for_a_part_that_is_being_written(tmp_path: Path) -> None:
    filled(tmp_path, range(10))
    code = (
        "real = os.replace\n"
        "def wait(*paths):\n"
        "    print('writing', flush=True)\n"
        "    sys.stdin.readline()\n"
        "    real(*paths)\n"
        "os.replace = wait\n"
        "print(fill(ForecastStore(Path(arguments[0]), KEY), range(10, 20)))\n"
    )
    writer = process(code, tmp_path)
    assert writer.stdout is not None
    assert writer.stdin is not None
    assert writer.stdout.readline() == "writing\n"
    assert len(leftovers(tmp_path)) == 1
    pruner = process("print(prune(Path(arguments[0]), on_progress=lambda *_: print('pruning', flush=True)))", tmp_path)
    assert pruner.stdout is not None
    assert pruner.stdout.readline() == "pruning\n"
    time.sleep(0.3)  # time enough to remove the file, were it not waiting
    writer.stdin.write("go\n")
    assert ended(writer) == (0, "10\n")
    status, output = ended(pruner)
    assert status == 0
    assert "removed_temporary=0" in output
    assert held(ForecastStore(tmp_path, KEY), range(20)) == list(range(20))
