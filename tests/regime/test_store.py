"""The forecast store: what was put is answered, what is damaged is missed, and nothing is ever answered wrongly."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from regime.serving.memory import CacheConfig
from regime.serving.parts import PartFile, part_files
from regime.serving.store import ForecastStore, StoreKey, default_root
from regime.serving.storekeeping import prune
from tests.regime.stores import (
    KEY,
    OTHER_KEY,
    ROOT,
    answer,
    ended,
    fill,
    filled,
    held,
    leftovers,
    part_paths,
    process,
    window,
)


def test_what_was_put_is_answered_at_once_and_after_reopening(tmp_path: Path) -> None:
    writer = ForecastStore(tmp_path, KEY)
    assert fill(writer, range(100)) == 100
    reader = ForecastStore(tmp_path, KEY)
    for store in (writer, reader):
        assert len(store) == 100
        assert window(7) in store
        assert window(100) not in store
        assert store.get(window(100)) is None
        assert held(store, range(101)) == list(range(100))
        assert not store.damaged


def test_an_answer_has_the_shape_of_the_key_and_cannot_be_written_to(tmp_path: Path) -> None:
    writer = ForecastStore(tmp_path, KEY)
    fill(writer, range(3))
    for store in (writer, ForecastStore(tmp_path, KEY)):
        quantiles = store.get(window(1))
        assert quantiles is not None
        assert quantiles.shape == (4, 9)
        assert quantiles.dtype == np.float32
        assert quantiles.base is None, "it would keep its whole part in memory"
        with pytest.raises(ValueError, match="read-only"):
            quantiles[0, 0] = 1.0


def test_later_changes_to_what_was_put_do_not_reach_the_store(tmp_path: Path) -> None:
    store = ForecastStore(tmp_path, KEY)
    values = answer(1)[None]
    store.put_many([window(1)], values)
    values[:] = 0.0
    assert held(store, [1]) == [1]


def test_a_missing_store_is_empty_and_reading_makes_no_directory(tmp_path: Path) -> None:
    store = ForecastStore(tmp_path / "nowhere", KEY)
    assert len(store) == 0
    assert store.get(window(1)) is None
    assert not (tmp_path / "nowhere").exists()


def test_each_key_has_a_store_of_its_own(tmp_path: Path) -> None:
    filled(tmp_path, range(5))
    changes: list[dict[str, Any]] = [
        {"checkpoint_sha256": "ef" * 32},
        {"engine": "torch-2"},
        {"dtype": "bfloat16"},
        {"device": "cuda"},
        {"context_bars": 256},
        {"horizon_bars": 8},
    ]
    for change in changes:
        assert len(ForecastStore(tmp_path, dataclasses.replace(KEY, **change))) == 0, change
    assert len(ForecastStore(tmp_path, dataclasses.replace(KEY))) == 5


def test_the_checkpoint_id_is_the_beginning_of_its_digest(tmp_path: Path) -> None:
    assert ForecastStore(tmp_path, KEY).checkpoint_id == ("ab" * 32)[:16]


def test_the_key_file_says_in_plain_text_what_the_store_holds(tmp_path: Path) -> None:
    filled(tmp_path, range(5))
    assert StoreKey.from_json((tmp_path / KEY.digest / "key.json").read_text()) == KEY


def test_windows_known_already_are_not_written_again(tmp_path: Path) -> None:
    store = filled(tmp_path, range(5))
    assert fill(store, range(5), engine=1) == 0
    assert fill(store, [4, 5, 5, 6]) == 2
    assert len(part_paths(tmp_path)) == 2
    assert held(ForecastStore(tmp_path, KEY), range(7)) == list(range(7))


def test_forecasts_that_are_not_finite_are_not_kept(tmp_path: Path) -> None:
    store = ForecastStore(tmp_path, KEY)
    values = np.stack([answer(number) for number in range(4)])
    values[1, 3, 8] = np.nan
    values[2, 0, 0] = -np.inf
    assert store.put_many([window(number) for number in range(4)], values) == 2
    assert held(store, range(4)) == held(ForecastStore(tmp_path, KEY), range(4)) == [0, 3]


def test_forecasts_of_another_shape_are_refused(tmp_path: Path) -> None:
    store = ForecastStore(tmp_path, KEY)
    for windows, shape in [([window(1)], (1, 5, 9)), ([window(1)], (2, 4, 9)), ([b"short"], (1, 4, 9))]:
        with pytest.raises(ValueError, match="window"):
            store.put_many(windows, np.zeros(shape, dtype=np.float32))
    assert store.put_many([], np.zeros((0, 4, 9), dtype=np.float32)) == 0
    assert not part_paths(tmp_path)


@pytest.mark.parametrize("entries", [0, 1, 3, 1000])
def test_little_memory_changes_no_answer(tmp_path: Path, entries: int) -> None:
    filled(tmp_path, range(20), range(20, 40))
    store = ForecastStore(tmp_path, KEY, CacheConfig(max_entries=entries))
    for numbers in (range(40), range(39, -1, -1), [0, 39, 1, 38]):
        assert held(store, numbers) == list(numbers)


@settings(max_examples=30)
@given(
    st.lists(
        st.one_of(
            st.lists(st.integers(0, 12), min_size=1, max_size=5),
            st.sampled_from(["reopen", "prune", "prune of another"]),
        ),
        max_size=12,
    )
)
def test_whatever_is_put_reopened_and_pruned_it_answers_like_a_dictionary(steps: list[list[int] | str]) -> None:
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        filled(root, [1], key=OTHER_KEY)
        store, kept = ForecastStore(root, KEY), set[int]()
        for step in steps:
            if isinstance(step, list):
                fill(store, step)
                kept.update(step)
            elif step == "reopen":
                store = ForecastStore(root, KEY)
            else:
                prune(root, max_bytes=None if step == "prune" else 10**9)
            assert len(store) == len(kept)
            assert held(store, range(13)) == sorted(kept)
        assert not store.damaged


# --- other processes ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("moment", ["os.fsync", "os.replace"])
def test_a_process_killed_in_the_middle_of_writing_loses_only_that_part(tmp_path: Path, moment: str) -> None:
    code = (
        "store = ForecastStore(Path(arguments[0]), KEY)\n"
        "fill(store, range(10))\n"
        f"{moment} = die\n"
        "fill(store, range(10, 20))\n"
    )
    status, _ = ended(process(code, tmp_path))
    assert status == -9
    assert len(leftovers(tmp_path)) == 1, "it was not killed in the middle"
    store = ForecastStore(tmp_path, KEY)
    assert held(store, range(20)) == list(range(10))
    assert not store.damaged
    assert fill(store, range(10, 20)) == 10
    assert prune(tmp_path).removed_temporary == 1
    assert not leftovers(tmp_path)
    assert held(ForecastStore(tmp_path, KEY), range(20)) == list(range(20))


@pytest.mark.parametrize("parts", [1, 5, 20])
def test_every_part_that_a_killed_process_had_finished_is_there(tmp_path: Path, parts: int) -> None:
    code = (
        "store = ForecastStore(Path(arguments[0]), KEY)\n"
        "for part in range(100_000):\n"
        "    fill(store, range(50 * part, 50 * part + 50))\n"
        "    print(part, flush=True)\n"
    )
    running = process(code, tmp_path)
    assert running.stdout is not None
    for _ in range(parts):
        running.stdout.readline()
    running.kill()
    _, rest = ended(running)
    finished = parts + len(rest.splitlines())
    store = ForecastStore(tmp_path, KEY)
    kept = held(store, range(50 * (finished + 2)))
    assert kept[: 50 * finished] == list(range(50 * finished))
    assert len(kept) in {50 * finished, 50 * (finished + 1)}, "a part is there whole or not at all"
    assert not store.damaged


def test_two_processes_write_at_once_and_nothing_is_lost(tmp_path: Path) -> None:
    code = (
        "store = ForecastStore(Path(arguments[0]), KEY)\n"
        "print('open', flush=True)\n"
        "sys.stdin.readline()\n"
        "for first in range(int(arguments[1]), int(arguments[2]), 10):\n"
        "    fill(store, range(first, first + 10))\n"
        "print(len(store), store.damaged)\n"
    )
    both = [process(code, tmp_path, *span) for span in ((0, 200), (100, 300))]
    for running in both:
        assert running.stdout is not None
        running.stdout.readline()
    for running in both:
        assert running.stdin is not None
        running.stdin.write("go\n")
        running.stdin.flush()
    assert [ended(running) for running in both] == [(0, "200 []\n")] * 2
    store = ForecastStore(tmp_path, KEY)
    assert len(part_paths(tmp_path)) == 40
    assert held(store, range(310)) == list(range(300))
    assert len(store) == 300


def test_of_two_forecasts_for_a_window_the_first_written_is_answered(tmp_path: Path) -> None:
    one, other = ForecastStore(tmp_path, KEY), ForecastStore(tmp_path, KEY)
    fill(one, range(5))
    fill(other, range(10), engine=1)
    for number, part in enumerate(sorted(part_paths(tmp_path), key=lambda path: path.stat().st_size)):
        os.utime(part, ns=(number * 10**9, number * 10**9))
    store = ForecastStore(tmp_path, KEY)
    later = store.get(window(7))  # and its part with it, which has something else to say on the first five
    assert later is not None
    assert np.array_equal(later, answer(7, engine=1))
    assert held(store, range(5)) == list(range(5))


def test_parts_merged_between_listing_and_reading_are_found_where_they_went(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled(tmp_path, range(10), range(10, 20))

    def listed_just_before_a_prune(directory: Path) -> list[PartFile]:
        listed = part_files(directory)
        prune(tmp_path)
        return listed

    monkeypatch.setattr("regime.serving.store.part_files", listed_just_before_a_prune)
    assert held(ForecastStore(tmp_path, KEY), range(20)) == list(range(20))


# --- where it lies --------------------------------------------------------------------------------------------


def test_the_store_lies_where_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ada")
    monkeypatch.delenv("SAGE_STORE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert default_root() == Path("/home/ada/.cache/sage/forecasts")
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert default_root() == Path("/home/ada/.cache/sage/forecasts")
    monkeypatch.setenv("XDG_CACHE_HOME", "/cache")
    assert default_root() == Path("/cache/sage/forecasts")
    monkeypatch.setenv("SAGE_STORE", "~/store")
    assert default_root() == Path("/home/ada/store")


def test_the_store_needs_none_of_the_heavy_libraries() -> None:
    heavy = "{'torch', 'pandas', 'nautilus_trader'}"
    code = f"import sys, regime.serving.store, regime.serving.storekeeping; sys.exit(len({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False, cwd=ROOT).returncode == 0
