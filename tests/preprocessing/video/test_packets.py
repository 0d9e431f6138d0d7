"""The times of packets."""

import pytest

from lgd.preprocessing.video.ffmpeg_child import open_video
from lgd.preprocessing.video.packets import StreamPackets, read_packets
from lgd.preprocessing.video.rejections import Limits
from tests.preprocessing.video.generated_videos import TEST_VIDEO, X264, Make


def test_the_packets_of_each_stream_are_read_in_any_order_of_times(make: Make) -> None:
    sound = ("-f", "lavfi", "-i", "sine=d=3:r=8000", "-c:a", "pcm_s16le", "-t", "3")
    path = make("v.mkv", TEST_VIDEO, *sound, *X264, "-bf", "3")
    with open_video(path) as video:
        packets = read_packets(video, [1, 0], Limits())
    assert list(packets) == [1, 0]
    assert packets[0].count == 50
    assert (packets[0].first_s, packets[0].key_s, packets[0].end_s, packets[0].gaps_s) == pytest.approx((0, 0, 2, 0))
    assert packets[1].end_s == pytest.approx(3, abs=0.01)


def test_reading_ends_when_it_is_enough(make: Make) -> None:
    # More than a pipe holds at once.
    path = make("v.mkv", "color=red:s=16x16:r=1000:d=20", "-c:v", "rawvideo")
    with open_video(path) as video:
        some = read_packets(video, [0], Limits(), enough=lambda packets: packets[0].count > 100)
    assert 100 < some[0].count < 20_000


def test_a_file_without_packets_gives_none(make: Make) -> None:
    path = make("v.mkv", TEST_VIDEO, *X264)
    path.write_bytes(path.read_bytes()[:40])
    with open_video(path) as video:
        assert read_packets(video, [0], Limits()) == {0: StreamPackets()}


def test_decodable_time_begins_with_a_key_frame_and_has_no_gaps() -> None:
    packets = StreamPackets()
    for start_s, key in ((10.0, False), (10.5, True), (10.25, False), (20.0, False), (19.5, False)):
        packets.add(start_s, 0.5, key=key)
    assert (packets.count, packets.first_s, packets.key_s, packets.end_s) == (5, 10.0, 10.5, 20.5)
    assert packets.gaps_s == 9.0
    assert packets.decodable_s() == 1.0
