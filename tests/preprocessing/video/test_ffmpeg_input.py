"""The formats of files that are accepted."""

import pytest

from lgd.preprocessing.video.decode import decode
from lgd.preprocessing.video.ffmpeg_input import CONTAINERS
from lgd.preprocessing.video.files import EXTENSIONS
from tests.preprocessing.video.generated_videos import Make

MPEG2, DV = ("-c:v", "mpeg2video"), ("-s", "720x576", "-pix_fmt", "yuv420p", "-c:v", "dvvideo")


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


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("v.3gp", ("-s", "176x144", "-c:v", "h263")),
        ("v.dv", (*DV, "-f", "dv")),
        ("v.gif", ()),
        ("v.m2ts", MPEG2),
        ("v.m2v", MPEG2),
        ("v.mjpeg", ("-c:v", "mjpeg")),
        ("v.mjpg", ("-c:v", "mjpeg", "-f", "mjpeg")),
        ("mjpeg.mp4", ("-c:v", "mjpeg", "-f", "mjpeg")),  # the content counts, not the name
        ("v.mxf", MPEG2),
        ("v.rm", ("-c:v", "rv20")),
        ("v.vob", (*MPEG2, "-f", "vob")),
        ("v.y4m", ("-pix_fmt", "yuv420p")),
    ],
)
def test_files_that_are_listed_as_videos_are_decoded(make: Make, name: str, options: tuple[str, ...]) -> None:
    assert EXTENSIONS.search(name)
    assert 23 <= len(decode(make(name, "testsrc2=s=96x64:r=25:d=1", *options), 25, 32).rgb) <= 25
