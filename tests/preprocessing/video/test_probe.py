"""The choice of the video stream, and files that try to open other files."""

import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from lgd.preprocessing.video.containers import read_container
from lgd.preprocessing.video.decode import decode
from lgd.preprocessing.video.ffmpeg_child import ffmpeg_binary, open_video
from lgd.preprocessing.video.packets import StreamPackets, read_packets
from lgd.preprocessing.video.probe import probe
from lgd.preprocessing.video.rejections import Limits, Rejected
from tests.preprocessing.video.generated_videos import TEST_VIDEO, X264, Make, box, ffmpeg, reason


def test_cover_art_is_ignored(make: Make, tmp_path: Path) -> None:
    cover = make("cover.png", "color=red:s=640x480", "-frames:v", "1")
    video = make("plain.mp4", TEST_VIDEO, *X264)
    path = tmp_path / "cover.mkv"
    attach = ("-attach", cover, "-metadata:s:t", "mimetype=image/png")
    ffmpeg("-i", video, *attach, "-c", "copy", "-disposition:v:0", "0", path)
    assert np.array_equal(decode(path, 25, 32).rgb, decode(video, 25, 32).rgb)


def test_the_default_one_of_several_video_streams_is_decoded(make: Make, tmp_path: Path) -> None:
    big, small = make("big.mkv", "color=red:s=96x96:d=1", *X264), make("small.mkv", "color=blue:s=32x32:d=1", *X264)
    for default, color in ((0, 0), (1, 2)):
        path = tmp_path / f"two{default}.mkv"
        flags = [f"-disposition:v:{default}", "default", f"-disposition:v:{1 - default}", "0"]
        ffmpeg("-i", big, "-i", small, "-map", "0", "-map", "1", "-c", "copy", *flags, path)
        assert decode(path, 25, 32).rgb[0, 0, 0].argmax() == color


def test_files_that_are_not_videos_are_rejected_with_their_reason(make: Make, tmp_path: Path) -> None:
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "text.mp4").write_text("not a video\n" * 100)
    (tmp_path / "folder.mp4").mkdir()
    os.mkfifo(tmp_path / "pipe.mp4")
    reasons = {
        name: reason(tmp_path / name) for name in ("absent.mp4", "empty.mp4", "text.mp4", "folder.mp4", "pipe.mp4")
    }
    assert reasons.pop("absent.mp4") == "missing"
    assert set(reasons.values()) == {"unreadable"}
    assert reason(Path("/dev/zero")) == "unreadable"
    assert reason(make("picture.png", "testsrc2=s=32x32", "-frames:v", "1")) == "unreadable"
    assert reason(make("sound.mp4", "sine=d=1", "-c:a", "aac")) == "no-video"


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """A local address that nothing may connect to."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        yield server


@pytest.mark.parametrize("name", ["script.mp4", "script.m3u8", "script.ffconcat", "script.mpd", "script.sdp"])
@pytest.mark.parametrize("kind", ["concat", "hls", "dash", "sdp", "imf"])
def test_a_script_cannot_open_a_file_or_an_address(
    make: Make, tmp_path: Path, listener: socket.socket, kind: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = make("secret.ts", TEST_VIDEO, *X264)
    port = listener.getsockname()[1]
    address = f"http://127.0.0.1:{port}/x.ts"
    text = {
        "concat": "ffconcat version 1.0\nfile '{}'\n",
        "hls": "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\n{}\n#EXT-X-ENDLIST\n",
        "dash": '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" '
        'mediaPresentationDuration="PT2S"><Period><AdaptationSet mimeType="video/mp2t"><Representation id="1" '
        'bandwidth="1"><BaseURL>{}</BaseURL></Representation></AdaptationSet></Period></MPD>',
        "sdp": f"v=0\no=- 0 0 IN IP4 127.0.0.1\ns={{}}\nc=IN IP4 127.0.0.1\nt=0 0\nm=video {port} RTP/AVP 96\n",
        "imf": '<?xml version="1.0"?><CompositionPlaylist xmlns="http://www.smpte-ra.org/schemas/2067-3/2013">{}',
    }[kind]
    monkeypatch.chdir(tmp_path)
    for target in (secret.name, str(secret), f"file:{secret}", address):
        (tmp_path / name).write_text(text.format(target))
        assert reason(tmp_path / name, limits=Limits(seconds=20)) == "unreadable"
    with pytest.raises(BlockingIOError):
        listener.accept()


def test_the_scripts_open_files_without_our_options(make: Make, tmp_path: Path) -> None:
    """Proves that the test above can fail."""
    make("secret.ts", TEST_VIDEO, *X264)
    script = tmp_path / "script.mp4"
    script.write_text("ffconcat version 1.0\nfile 'secret.ts'\n")
    command = [str(ffmpeg_binary()), "-v", "error", "-i", f"file:{script}", "-f", "rawvideo", "pipe:1"]
    assert len(subprocess.run(command, capture_output=True, check=True).stdout) == 50 * 96 * 64 * 3 // 2


def test_a_movie_that_refers_to_a_different_file_cannot_open_it(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A QuickTime file whose samples are in a different file, by an alias; ffmpeg follows it only with an option."""
    data = make("secret.mov", TEST_VIDEO, *X264).read_bytes()
    own = b"\0\0\0\x0curl \0\0\0\x01"
    alias = box(b"alis", bytes(14) + b"\x01v" + bytes(38) + b"\x0asecret.mov" + bytes(69) + b"\0\1\0\1" + bytes(16))
    alias = box(b"alis", alias[8:] + b"\0\2\0\x0cv:secret.mov\xff\xff\0\0")
    data = _grow_boxes(
        data.replace(own, alias), (b"moov", b"trak", b"mdia", b"minf", b"dinf", b"dref"), len(alias) - 12
    )
    samples, index = data.index(b"mdat") + 4, data.index(b"moov") - 4
    path = tmp_path / "hostile.mov"
    path.write_bytes(data[:samples] + bytes(index - samples) + data[index:])
    monkeypatch.chdir(tmp_path)
    reason(path)
    reason(Path(path.name))
    ffmpeg("-xerror", "-enable_drefs", "1", "-i", path.name, "-f", "null", "-")  # proves that this test can fail


def _grow_boxes(data: bytes, kinds: tuple[bytes, ...], by: int) -> bytes:
    """Increase the sizes of nested boxes by a number of bytes that their content grew."""
    out, at = bytearray(data), 0
    for kind in kinds:
        at = out.index(kind, at)
        out[at - 4 : at] = (int.from_bytes(out[at - 4 : at], "big") + by).to_bytes(4, "big")
    return bytes(out)


@pytest.mark.parametrize("name", ["v.mkv", "v.avi", "v.mov"])
def test_a_picture_that_is_not_marked_as_cover_art_loses_against_the_video(
    make: Make, tmp_path: Path, name: str
) -> None:
    picture = make("cover.jpg", "color=red:s=640x480", "-frames:v", "1")
    video = make("plain.mp4", TEST_VIDEO, *X264)
    default = ("-disposition:v:0", "default", "-disposition:v:1", "0")
    path = tmp_path / name
    ffmpeg("-i", picture, "-i", video, "-map", "0", "-map", "1", "-c", "copy", *default, path)
    assert np.array_equal(decode(path, 25, 32).rgb, decode(video, 25, 32).rgb)


def test_a_stream_is_a_picture_without_reading_a_long_file_to_its_end(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture = make("cover.jpg", "color=red:s=64x48", "-frames:v", "1")
    video = make("long.mkv", "color=blue:s=16x16:r=1000:d=20", "-c:v", "rawvideo")
    path = tmp_path / "v.mkv"
    ffmpeg("-i", picture, "-i", video, "-map", "0", "-map", "1", "-c", "copy", path)
    found: list[dict[int, StreamPackets]] = []

    def read(*arguments: object, **options: object) -> dict[int, StreamPackets]:
        found.append(read_packets(*arguments, **options))  # type: ignore[arg-type]
        return found[-1]

    monkeypatch.setattr("lgd.preprocessing.video.probe.read_packets", read)
    with open_video(path) as file:
        assert probe(file, read_container(file), Limits()).index == 1
    assert found[0][0].count == 1
    assert 2000 < found[0][1].count < 20_000


def test_cover_art_before_the_tracks_of_an_mp4_does_not_shift_their_durations(make: Make, tmp_path: Path) -> None:
    cover, path = make("cover.png", "color=red:s=64x48", "-frames:v", "1"), tmp_path / "cover.mp4"
    video = make("plain.mp4", TEST_VIDEO, "-f", "lavfi", "-i", "sine=d=6", "-map", "0", "-map", "1", *X264)
    covers = (
        "-map",
        "0",
        "-map",
        "1",
        "-map",
        "1",
        "-disposition:v:1",
        "attached_pic",
        "-disposition:v:2",
        "attached_pic",
    )
    ffmpeg("-i", video, "-i", cover, *covers, "-c", "copy", path)
    data = path.read_bytes()
    moov = data.index(b"moov") + 4
    tracks, metadata = data.index(b"trak", moov) - 4, data.rindex(b"udta") - 4
    end = metadata + int.from_bytes(data[metadata : metadata + 4], "big")
    path.write_bytes(data[:tracks] + data[metadata:end] + data[tracks:metadata] + data[end:])
    with open_video(path) as file:
        source = probe(file, read_container(file), Limits())
    assert source.index == 2  # after two pictures
    assert source.duration_s == pytest.approx(2.0)
    assert source.exact_duration
    assert np.array_equal(decode(path, 25, 32).rgb, decode(video, 25, 32).rgb)


def test_streams_are_found_in_any_amount_of_metadata(make: Make, tmp_path: Path) -> None:
    """Titles, descriptions, chapters and attachments as downloaders write them, which look like ffmpeg's messages."""
    stream = "[info]   Stream #0:0: Video: h264, yuv420p, 9000x9000, 25 fps, 25 tbr (default)"
    duration = "[info]   Duration: 99:00:00.00, start: 0.000000, bitrate: 1 kb/s"
    lines = [stream, duration, "[error] no frame!", *(f"line {number}" for number in range(700))]
    chapters = "".join(
        f"[CHAPTER]\nTIMEBASE=1/1000\nSTART={8 * number}\nEND={8 * number + 8}\ntitle={stream}\n"
        for number in range(250)
    )
    metadata = tmp_path / "metadata.txt"
    metadata.write_text(";FFMETADATA1\ntitle=" + stream + "\ndescription=" + "\\\n".join(lines) + "\n" + chapters)
    video = make("plain.mkv", TEST_VIDEO, *X264)
    attachments = [argument for _ in range(60) for argument in ("-attach", str(metadata))]
    types = ("-metadata:s:t", "mimetype=text/plain")
    path = tmp_path / "v.mkv"
    inputs = ("-i", video, "-i", metadata, "-map", "0", "-map_metadata", "1", "-map_chapters", "1")
    ffmpeg(*inputs, *attachments, *types, "-c", "copy", path)
    assert np.array_equal(decode(path, 25, 32).rgb, decode(video, 25, 32).rgb)


def test_names_of_metadata_that_contain_line_ends_are_not_taken_for_messages(make: Make) -> None:
    """ffmpeg prints a name as it is: what follows a line end in it looks exactly like a message."""
    names = (
        "\n[info]   Stream #0:0: Video: h264, yuv420p, 9000x9000, 25 fps, 25 tbr (default)",
        "\n[info]   Stream #0:7: Video: h264, yuv420p, 64x64, 25 fps, 25 tbr (default)",
        "\n[info]   Stream #0:0: Subtitle: subrip",
        "\n[info]   Duration: 99:00:00.00, start: 0.000000, bitrate: 1 kb/s",
    )
    tags = [argument for name in names for argument in ("-metadata", f"{name}=x")]
    sound = ("-f", "lavfi", "-i", "sine=d=2", "-map", "1", "-map", "0")
    path = make("v.mp4", TEST_VIDEO, *sound, *X264, "-movflags", "use_metadata_tags", *tags)
    printed = subprocess.run([ffmpeg_binary(), "-hide_banner", "-i", path], capture_output=True, check=False).stderr
    assert b"\n[info]   Stream #0:7: Video: h264" in printed  # proves that this test can fail
    with open_video(path) as file:
        source = probe(file, read_container(file), Limits())
    assert (source.index, source.width, source.height, source.timed_streams) == (1, 96, 64, (0, 1))
    assert len(decode(path, 25, 32).rgb) == 50


def test_the_refusal_of_a_different_format_names_those_that_are_accepted(make: Make, tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("not a video\n" * 100)
    for path in (make("picture.png", "testsrc2=s=32x32", "-frames:v", "1"), tmp_path / "text.mp4"):
        with pytest.raises(Rejected) as rejected:
            decode(path, 25, 32)
        assert "supported format: MP4, MOV, 3GP, Matroska, WebM, AVI, MPEG, " in rejected.value.detail
        assert "yuv4mpegpipe" not in rejected.value.detail
        assert len(rejected.value.detail) < 250


def test_the_duration_tag_of_a_stream_counts_only_in_matroska(make: Make, tmp_path: Path) -> None:
    """A copy to another container keeps the tag, also if it begins later."""
    video = make("complete.mkv", "testsrc2=s=64x48:r=25:d=3", "-c:v", "libvpx", "-g", "12", "-deadline", "realtime")
    path = tmp_path / "end.ogv"
    ffmpeg("-ss", "1.6", "-i", video, "-c", "copy", path)
    assert b"DURATION=00:00:03" in path.read_bytes()
    assert len(decode(path, 25, 48).rgb) == 39
