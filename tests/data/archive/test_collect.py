"""Files of an archive come here whole, once, and with what people should know of them."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import numpy as np
import pytest

from data.archive.collect import Collected, collect
from data.archive.download import Archive, Patience, Unreachable, told_of
from data.archive.names import ArchiveMarket, ArchiveRequest
from data.bars import BarSize
from data.errors import DataError, OptionError
from tests.archive import LoopbackArchive
from tests.data.files import kline_lines

TODAY = date(2024, 9, 10)
SIZE = BarSize.parse("30m")
MONTHLY = "data/spot/monthly/klines/BTCUSDT/30m"
DAILY = "data/spot/daily/klines/BTCUSDT/30m"
PATIENCE = Patience(connect_s=5.0, read_s=5.0, attempts=3, pause_s=0.01)


@pytest.fixture
def archive() -> Iterator[LoopbackArchive]:
    with LoopbackArchive() as running:
        for month in (1, 2, 3):
            running.put(f"{MONTHLY}/BTCUSDT-30m-2024-0{month}.zip", kline_lines(48, f"2024-0{month}-01"))
        yield running


@pytest.fixture
def large(archive: LoopbackArchive) -> LoopbackArchive:
    """An archive whose files come in several pieces, which no zip of a few bars does; nothing here looks into them."""
    for number, path in enumerate(archive.files):
        archive.files[path] = np.random.default_rng(number).bytes(400_000)
    return archive


def run(
    archive: LoopbackArchive,
    here: Path,
    first: str = "2024-01-01",
    last: str = "2024-03-31",
    patience: Patience = PATIENCE,
) -> Collected:
    request = ArchiveRequest("BTCUSDT", SIZE, date.fromisoformat(first), date.fromisoformat(last), ArchiveMarket.SPOT)
    return collect(request, Archive(archive.address, here, patience), TODAY, lambda *_: None)


def bodies(found: Collected) -> list[bytes]:
    return [one.path.read_bytes() for one in found.files]


def test_files_come_whole_in_the_order_of_time_and_only_once(archive: LoopbackArchive, tmp_path: Path) -> None:
    found = run(archive, tmp_path)
    assert bodies(found) == list(archive.files.values()) and not found.missing and not found.notes
    again = run(archive, tmp_path)
    assert [one.was_here for one in again.files] == [True] * 3
    assert set(archive.fetched().values()) == {1}


def test_a_connection_that_ends_early_is_taken_up_where_it_ended(archive: LoopbackArchive, tmp_path: Path) -> None:
    name = "BTCUSDT-30m-2024-02.zip"
    archive.cuts[name] = [100, 200]
    assert bodies(run(archive, tmp_path)) == list(archive.files.values())
    assert [given for path, given in archive.asked if path.endswith(name)] == [None, "bytes=100-", "bytes=300-"]


def test_a_part_left_by_an_earlier_run_is_gone_on_with(archive: LoopbackArchive, tmp_path: Path) -> None:
    name = "BTCUSDT-30m-2024-02.zip"
    archive.cuts[name] = [100] * PATIENCE.attempts
    archive.cuts[name][-1] = 50
    with pytest.raises(Unreachable, match="cut off"):
        run(archive, tmp_path)
    assert bodies(run(archive, tmp_path)) == list(archive.files.values())
    assert [given for path, given in archive.asked if path.endswith(name)][-1] == "bytes=250-"


def test_errors_of_the_server_are_tried_again(archive: LoopbackArchive, tmp_path: Path) -> None:
    archive.errors["BTCUSDT-30m-2024-01.zip"] = [503, 429]
    archive.errors["BTCUSDT-30m-2024-02.zip.CHECKSUM"] = [500]
    assert bodies(run(archive, tmp_path)) == list(archive.files.values())


def test_an_archive_that_is_slow_is_waited_for(archive: LoopbackArchive, tmp_path: Path) -> None:
    archive.held = True

    def go_on() -> None:
        archive.half_sent.wait(5.0)
        archive.held = False
        archive.released.set()

    threading.Thread(target=go_on).start()
    assert bodies(run(archive, tmp_path)) == list(archive.files.values())
    assert archive.half_sent.is_set()


def test_an_archive_that_stops_in_the_middle_is_given_up_and_asked_later_for_the_rest(
    large: LoopbackArchive, tmp_path: Path
) -> None:
    large.held = True
    hasty = Patience(connect_s=5.0, read_s=0.1, attempts=2, pause_s=0.01)
    with pytest.raises(Unreachable, match="cannot be reached: timed out"):
        run(large, tmp_path, patience=hasty)
    assert not list(tmp_path.rglob("*.zip")) and max(large.fetched().values()) == hasty.attempts
    large.held = False
    begun = len(large.asked)
    assert bodies(run(large, tmp_path)) == list(large.files.values())
    assert any(given is not None for path, given in large.asked[begun:] if path.endswith(".zip"))


def test_an_archive_that_stops_once_is_asked_again_at_once(large: LoopbackArchive, tmp_path: Path) -> None:
    large.held = True

    def go_on() -> None:
        large.half_sent.wait(5.0)
        large.held = False

    threading.Thread(target=go_on).start()
    hasty = Patience(connect_s=5.0, read_s=0.2, attempts=4, pause_s=0.01)
    assert bodies(run(large, tmp_path, patience=hasty)) == list(large.files.values())
    assert max(large.fetched().values()) > 1


def test_what_ctrl_c_interrupts_is_finished_by_the_next_run(large: LoopbackArchive, tmp_path: Path) -> None:
    large.held = True

    def interrupt() -> None:
        until = time.monotonic() + 10.0
        while not any(path.stat().st_size for path in tmp_path.rglob("*.part")) and time.monotonic() < until:
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)
        large.released.set()

    threading.Thread(target=interrupt).start()
    with pytest.raises(KeyboardInterrupt):
        run(large, tmp_path)
    assert list(tmp_path.rglob("*.part")) and not list(tmp_path.rglob("*.zip"))
    large.held = False
    begun = len(large.asked)
    assert bodies(run(large, tmp_path)) == list(large.files.values())
    assert any(given is not None for path, given in large.asked[begun:] if path.endswith(".zip"))
    assert not list(tmp_path.rglob("*.part"))


def test_a_file_that_is_not_what_its_checksum_says_is_fetched_twice_and_refused(
    archive: LoopbackArchive, tmp_path: Path
) -> None:
    name = "BTCUSDT-30m-2024-02.zip"
    archive.lies.add(name)
    with pytest.raises(DataError, match=f"{name}: does not match its CHECKSUM .* fetched twice"):
        run(archive, tmp_path)
    assert archive.fetched()[name] == 2
    assert not list(tmp_path.rglob("BTCUSDT*2024-02*"))


def test_a_file_that_was_damaged_here_is_fetched_again(archive: LoopbackArchive, tmp_path: Path) -> None:
    damaged = run(archive, tmp_path).files[1].path
    damaged.write_bytes(damaged.read_bytes()[:-1])
    again = run(archive, tmp_path)
    assert bodies(again) == list(archive.files.values()) and not again.notes
    assert archive.fetched()[damaged.name] == 2


def test_a_file_that_the_archive_has_replaced_is_fetched_again_and_told_of(
    archive: LoopbackArchive, tmp_path: Path
) -> None:
    before = run(archive, tmp_path).files[1].sha256
    archive.put(f"{MONTHLY}/BTCUSDT-30m-2024-02.zip", kline_lines(47, "2024-02-01"))
    again = run(archive, tmp_path)
    assert bodies(again) == list(archive.files.values())
    assert again.files[1].replaced == before
    assert len(again.notes) == 1 and "BTCUSDT-30m-2024-02.zip: the archive has replaced it" in again.notes[0]


def test_what_was_replaced_is_told_until_people_were_told_of_it(archive: LoopbackArchive, tmp_path: Path) -> None:
    path = f"{MONTHLY}/BTCUSDT-30m-2024-02.zip"
    first = run(archive, tmp_path).files[1].sha256
    for count in (47, 46):
        archive.put(path, kline_lines(count, "2024-02-01"))
        # Of several versions the one counts that people know.
        assert [run(archive, tmp_path).files[1].replaced for _ in range(2)] == [first, first]
    told_of(one.path for one in run(archive, tmp_path).files)
    assert not run(archive, tmp_path).notes


def test_a_file_that_comes_back_as_it_was_replaces_nothing(archive: LoopbackArchive, tmp_path: Path) -> None:
    path = f"{MONTHLY}/BTCUSDT-30m-2024-02.zip"
    run(archive, tmp_path)
    for count in (47, 48):
        archive.put(path, kline_lines(count, "2024-02-01"))
        found = run(archive, tmp_path)
    assert found.files[1].replaced is None and not found.notes


def test_a_symbol_that_is_listed_later_begins_there(archive: LoopbackArchive, tmp_path: Path) -> None:
    found = run(archive, tmp_path, first="2023-11-01")
    assert len(found.files) == 3
    assert found.notes == [
        "nothing of BTCUSDT is there before 2024-01-01, not in BTCUSDT-30m-2023-11.zip, BTCUSDT-30m-2023-12.zip"
    ]


def test_a_symbol_that_is_listed_within_a_month_begins_with_its_days(archive: LoopbackArchive, tmp_path: Path) -> None:
    for day in (30, 31):
        archive.put(f"{DAILY}/BTCUSDT-30m-2023-12-{day}.zip", kline_lines(48, f"2023-12-{day}"))
    found = run(archive, tmp_path, first="2023-11-01")
    assert [one.file.name for one in found.files][:2] == ["BTCUSDT-30m-2023-12-30.zip", "BTCUSDT-30m-2023-12-31.zip"]
    assert found.missing[0] == "BTCUSDT-30m-2023-11.zip" and "before 2023-12-30" in found.notes[0]


def test_days_stand_in_for_a_month_that_is_missing(archive: LoopbackArchive, tmp_path: Path) -> None:
    del archive.files[f"{MONTHLY}/BTCUSDT-30m-2024-02.zip"]
    for day in range(1, 29):
        archive.put(f"{DAILY}/BTCUSDT-30m-2024-02-{day:02}.zip", kline_lines(48, f"2024-02-{day:02}"))
    found = run(archive, tmp_path)
    names = [one.file.name for one in found.files]
    assert len(names) == 2 + 28 and names[0].endswith("2024-01.zip") and names[-1].endswith("2024-03.zip")
    assert found.missing == ["BTCUSDT-30m-2024-02-29.zip"]
    assert found.notes == ["not in the archive: BTCUSDT-30m-2024-02-29.zip"]


def test_a_month_that_is_missing_altogether_is_told_of(archive: LoopbackArchive, tmp_path: Path) -> None:
    del archive.files[f"{MONTHLY}/BTCUSDT-30m-2024-02.zip"]
    found = run(archive, tmp_path)
    assert found.missing == ["BTCUSDT-30m-2024-02.zip"] and len(found.files) == 2


def test_a_symbol_that_the_archive_does_not_have_is_refused(archive: LoopbackArchive, tmp_path: Path) -> None:
    archive.files.clear()
    with pytest.raises(DataError, match=r"has no 30m bars of BTCUSDT in data/spot .*2024-01\.zip.*right symbol"):
        run(archive, tmp_path)
    assert not list(tmp_path.rglob("*.zip"))


def test_an_archive_that_cannot_be_reached_is_one_line_that_names_the_files(tmp_path: Path) -> None:
    with LoopbackArchive() as gone:
        pass
    with pytest.raises(Unreachable) as caught:
        run(gone, tmp_path)
    told = str(caught.value)
    assert "\n" not in told and "cannot be reached: Connection refused" in told
    assert f"would have fetched {MONTHLY}/BTCUSDT-30m-2024-01.zip, " in told


def test_what_is_all_here_is_taken_unasked_where_the_archive_cannot_be_reached(
    archive: LoopbackArchive, tmp_path: Path
) -> None:
    wanted = bodies(run(archive, tmp_path))
    for name in ("01", "02", "03"):
        archive.errors[f"BTCUSDT-30m-2024-{name}.zip.CHECKSUM"] = [503] * PATIENCE.attempts
    found = run(archive, tmp_path)
    assert bodies(found) == wanted
    assert len(found.notes) == 1 and "taken as they were fetched before" in found.notes[0]


def test_what_the_archive_did_not_have_is_not_missed_where_it_cannot_be_reached(tmp_path: Path) -> None:
    with LoopbackArchive() as gone:
        gone.put(f"{MONTHLY}/BTCUSDT-30m-2024-03.zip", kline_lines(48, "2024-03-01"))
        wanted = run(gone, tmp_path, first="2024-02-01")
    found = run(gone, tmp_path, first="2024-02-01")
    assert bodies(found) == bodies(wanted)
    assert found.missing == wanted.missing == ["BTCUSDT-30m-2024-02.zip"]


def test_what_the_archive_has_no_more_is_taken_as_it_was_fetched_before(
    archive: LoopbackArchive, tmp_path: Path
) -> None:
    wanted = bodies(run(archive, tmp_path))
    name = "BTCUSDT-30m-2024-02.zip"
    archive.unsigned.add(name)
    found = run(archive, tmp_path)
    assert bodies(found) == wanted and not found.missing
    assert found.notes == [f"no longer in the archive; taken as they were fetched before: {name}"]
    found.files[1].path.write_bytes(b"damaged")
    assert run(archive, tmp_path).missing == [name]


def test_two_who_want_the_same_file_fetch_it_once(archive: LoopbackArchive, tmp_path: Path) -> None:
    found: list[Collected] = []
    both = [threading.Thread(target=lambda: found.append(run(archive, tmp_path))) for _ in range(2)]
    for one in both:
        one.start()
    for one in both:
        one.join()
    assert [bodies(one) for one in found] == [list(archive.files.values())] * 2
    assert set(archive.fetched().values()) == {1}


def test_what_is_no_such_archive_is_refused(archive: LoopbackArchive, tmp_path: Path) -> None:
    archive.errors["BTCUSDT-30m-2024-01.zip.CHECKSUM"] = [200]
    with pytest.raises(DataError, match=r"is no checksum of BTCUSDT-30m-2024-01\.zip"):
        run(archive, tmp_path)


@pytest.mark.parametrize(
    "address",
    ["nowhere", "", "http://", "http://[::1", "http://a..b", "http://a:port", "http://a:99999", "ftp://a", "file:///a"],
)
def test_what_is_no_address_is_an_option_that_makes_no_sense(address: str, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="is no address"):
        Archive(address, tmp_path)


@pytest.mark.parametrize("address", ["http://127.0.0.1:8080/mirror/", "http://[::1]:80", "https://bücher.example"])
def test_mirrors_may_lie_anywhere(address: str, tmp_path: Path) -> None:
    assert Archive(address, tmp_path).host


@pytest.mark.parametrize("elsewhere", ["ftp://127.0.0.1/file.zip", "http://a..b/file.zip", "http://[::1/file.zip"])
def test_an_archive_that_sends_on_to_what_is_no_address_is_told_of(
    archive: LoopbackArchive, tmp_path: Path, elsewhere: str
) -> None:
    archive.sent_on["BTCUSDT-30m-2024-01.zip.CHECKSUM"] = elsewhere
    with pytest.raises(DataError, match=f"{archive.address}: leads to where nothing can be fetched"):
        run(archive, tmp_path)


def test_an_archive_that_tells_a_length_which_is_none_is_refused(archive: LoopbackArchive, tmp_path: Path) -> None:
    archive.lengths["BTCUSDT-30m-2024-01.zip"] = "many"
    with pytest.raises(DataError, match="is of 'many' bytes, the server says"):
        run(archive, tmp_path)


def test_progress_grows_and_reaches_its_end(archive: LoopbackArchive, tmp_path: Path) -> None:
    heard: list[tuple[int, int]] = []
    guard = threading.Lock()

    def hear(_: str, done: int, total: int) -> None:
        with guard:
            heard.append((done, total))

    request = ArchiveRequest("BTCUSDT", SIZE, date(2024, 1, 1), date(2024, 3, 31))
    collect(request, Archive(archive.address, tmp_path, PATIENCE), TODAY, hear)
    assert heard[0] == (0, 300) and heard[-1] == (300, 300)
    assert [done for done, _ in heard] == sorted(done for done, _ in heard)
