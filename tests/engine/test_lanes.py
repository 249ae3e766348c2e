"""The cursor's rules, as bookkeeping."""

from datetime import UTC, datetime, timedelta

from pgqueue.worker.lanes import COMMIT_GRACE, LAST_ID, START, Lanes

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def place(seconds: float) -> tuple[datetime, str]:
    return NOW + timedelta(seconds=seconds), "1" * 32


def test_a_full_claim_moves_the_cursor_to_the_last_row_taken() -> None:
    lanes = Lanes(["default"])
    assert lanes.claimed(lanes.plan({"default": 10}), {(0, 5): (10, place(-60))}, NOW, []) is True
    assert lanes.all[5].cursor == place(-60)


def test_a_claim_that_exhausted_the_lane_moves_it_to_now_less_the_grace() -> None:
    lanes = Lanes(["default"])
    assert lanes.claimed(lanes.plan({"default": 10}), {(0, 5): (3, place(-60))}, NOW, []) is False
    assert lanes.all[5].cursor == (NOW - COMMIT_GRACE, LAST_ID)
    assert lanes.all[9].cursor == (NOW - COMMIT_GRACE, LAST_ID)


def test_a_lane_that_was_not_reached_keeps_its_cursor_and_starves() -> None:
    lanes = Lanes(["default"])
    lanes.claimed(lanes.plan({"default": 10}), {(0, 2): (10, place(-60))}, NOW, [])
    assert lanes.all[1].cursor == (NOW - COMMIT_GRACE, LAST_ID)
    assert lanes.all[3].cursor == START
    assert [lane.starving for lane in lanes.all] == [False] * 3 + [True] * 7


def test_a_cursor_ahead_of_the_databases_clock_goes_back_to_the_start() -> None:
    lanes = Lanes(["default"])
    lanes.all[0].cursor = place(3600)
    lanes.claimed(lanes.plan({"default": 1}), {}, NOW, [])
    assert lanes.all[0].cursor == START


def test_a_paused_queue_keeps_its_cursors() -> None:
    lanes = Lanes(["default"])
    lanes.claimed(lanes.plan({"default": 5}), {}, NOW, ["default"])
    assert all(lane.cursor == START and not lane.starving for lane in lanes.all)


def test_waiting_lanes_have_a_tenth_of_each_claim() -> None:
    lanes = Lanes(["default"])
    lanes.claimed(lanes.plan({"default": 100}), {(0, 0): (100, place(-1))}, NOW, [])
    waiting, main = lanes.plan({"default": 100})
    assert (waiting.free, main.free) == (10, 90)
    assert [lane.priority for lane in waiting.lanes] == [1, 2, 3, 4, 5, 6, 7, 8, 9]
    assert [lane.priority for lane in main.lanes] == [0]


def test_among_waiting_lanes_the_one_that_waited_longest_goes_first() -> None:
    lanes = Lanes(["default"])
    lanes.claimed(lanes.plan({"default": 100}), {(0, 0): (100, place(-1))}, NOW, [])
    lanes.claimed(
        lanes.plan({"default": 100}), {(0, 0): (10, place(-1)), (1, 0): (90, place(-1))}, NOW, []
    )
    lanes.claimed(
        lanes.plan({"default": 100}), {(0, 0): (10, place(-1)), (1, 0): (90, place(-1))}, NOW, []
    )
    waiting, _ = lanes.plan({"default": 100})
    assert [lane.priority for lane in waiting.lanes] == [3, 4, 5, 6, 7, 8, 9, 1]


def test_a_worker_with_one_slot_serves_a_waiting_lane_once_in_ten_claims() -> None:
    lanes = Lanes(["default"])
    served = 0
    for _ in range(50):
        rooms = lanes.plan({"default": 1})
        served += rooms[0].lanes[0].priority != 0
        lanes.claimed(rooms, {(0, 0): (1, place(-1))}, NOW, [])
    assert 4 <= served <= 6
