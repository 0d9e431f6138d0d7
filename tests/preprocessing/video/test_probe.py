"""The choice of the video stream, and files that try to open other files."""

import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from lgd.preprocessing.video.decode import decode
from lgd.preprocessing.video.ffmpeg_child import ffmpeg_binary
from lgd.preprocessing.video.ffmpeg_input import CONTAINERS
from lgd.preprocessing.video.rejections import Limits
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


def test_containers_that_refer_to_other_files_are_not_allowed() -> None:
    names = set(CONTAINERS.split(","))
    assert not names & {
        "concat",
        "hls",
        "applehttp",
        "dash",
        "sdp",
        "rtsp",
        "imf",
        "image2",
        "lavfi",
        "webm_dash_manifest",
    }
    assert not names & {"tty", "data", "rawvideo", "vobsub", "avisynth", "libgme", "sap", "rtp"}


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
