from lgd.preprocessing.counters import ShardCounters


def test_counters_add_up_counts_and_seconds():
    total = ShardCounters(videos=1, frames=10, seconds={"decode": 1.0, "flow": 0.5})
    total.add(ShardCounters(videos=2, rejected=1, frames=20, flow_pairs=18, seconds={"decode": 2.0, "flow": 0.25}))
    assert total == ShardCounters(3, 1, 30, 18, {"decode": 3.0, "flow": 0.75})
    assert total.done == 4


def test_the_note_of_the_progress_has_rates_and_flow_pairs_only_if_there_are_any():
    assert ShardCounters(videos=3, rejected=1).note(2.0) == "1 rejected, 2.0 videos/s"
    assert ShardCounters(videos=4, flow_pairs=100).note(2.0) == "0 rejected, 2.0 videos/s, 50 flow pairs/s"
