"""Random videos as users have them: containers, codecs, rates, offsets, gaps, joins, changes of format, sound, extras.

`random_plan` draws a plan from a seeded generator, so two numbers are enough to draw it again. `video_commands` makes
the file.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from fractions import Fraction


@dataclass(frozen=True)
class Container:
    """A kind of file.

    codecs: that it holds here; sound: the codec of its sound, None without sound; options: of ffmpeg's muxer; timed:
    frames have times; joins: two files, one after the other, are a valid file; streams: can be written to a pipe;
    shifts: the clock may start at any time; varies: the time between frames may vary.
    """

    suffix: str
    codecs: tuple[str, ...]
    sound: str | None = None
    options: tuple[str, ...] = ()
    timed: bool = True
    joins: bool = False
    streams: bool = False
    shifts: bool = True
    varies: bool = True


FRAGMENTS = ("-movflags", "+frag_keyframe+empty_moov+default_base_moof")
MKV_CODECS = ("h264", "hevc", "vp8", "vp9", "av1", "mpeg4", "mpeg2", "ffv1", "theora", "mjpeg")
CONTAINERS: dict[str, Container] = {
    "mp4": Container("mp4", ("h264", "hevc", "av1", "vp9", "mpeg4", "mpeg2"), "aac"),
    "fragmented mp4": Container("mp4", ("h264", "hevc", "vp9", "mpeg4"), "aac", FRAGMENTS, streams=True),
    "mov": Container("mov", ("h264", "hevc", "mpeg4", "mjpeg", "prores", "qtrle", "png"), "aac"),
    "m4v": Container("m4v", ("h264", "mpeg4"), "aac"),
    "3gp": Container("3gp", ("h264", "mpeg4", "h263"), "aac"),
    "mkv": Container("mkv", MKV_CODECS, "libopus", streams=True),
    "webm": Container("webm", ("vp8", "vp9", "av1"), "libopus", streams=True),
    "avi": Container("avi", ("mpeg4", "mjpeg", "msmpeg4v3", "huffyuv", "ffv1"), "mp2", shifts=False, varies=False),
    "ts": Container("ts", ("h264", "hevc", "mpeg2", "mpeg4", "mpeg1"), "mp2", joins=True, streams=True),
    "m2ts": Container("m2ts", ("h264", "hevc", "mpeg2"), "ac3", ("-mpegts_m2ts_mode", "1"), joins=True, streams=True),
    "mpg": Container("mpg", ("mpeg1", "mpeg2"), "mp2", joins=True, streams=True),
    "vob": Container("vob", ("mpeg2",), "mp2", joins=True, streams=True),
    "flv": Container("flv", ("h264", "flv1"), "aac", streams=True),
    "wmv": Container("wmv", ("wmv2", "wmv1", "msmpeg4v3"), "wmav2"),
    "asf": Container("asf", ("wmv2", "h264", "mpeg4"), "wmav2", streams=True),
    "ogv": Container("ogv", ("theora", "vp8"), "libvorbis", joins=True, streams=True, shifts=False, varies=False),
    "nut": Container("nut", ("h264", "mpeg4", "ffv1", "vp9", "mjpeg"), "mp2", streams=True),
    "rm": Container("rm", ("rv10",), shifts=False, varies=False),
    "mxf": Container("mxf", ("mpeg2",), shifts=False),
    "wtv": Container("wtv", ("mpeg2",), "mp2"),
    "gif": Container("gif", ("gif",), shifts=False, varies=False),
    "ivf": Container("ivf", ("vp8", "vp9", "av1"), shifts=False),
    "h264": Container("h264", ("h264",), timed=False, joins=True),
    "hevc": Container("hevc", ("hevc",), timed=False, joins=True),
    "m2v": Container("m2v", ("mpeg2",), timed=False),
    "m1v": Container("m1v", ("mpeg1",), timed=False),
    "mjpeg": Container("mjpeg", ("mjpeg",), timed=False, joins=True),
    "y4m": Container("y4m", ("rawvideo",), timed=False),
}
ISO = ("mp4", "fragmented mp4", "mov", "m4v", "3gp")
PACKET_BYTES = {"ts": 188, "m2ts": 192}
MPEG = ("mpeg1", "mpeg2")
B_FRAMES = ("h264", "hevc", "mpeg4", "mpeg2", "mpeg1")
FIXED_SIZES = {"h263": (176, 144), "rv10": (176, 144)}
ODD_SIZES = ("vp8", "vp9", "mpeg4", "ffv1", "png", "qtrle", "gif", "theora")
# Codecs whose streams carry their own headers: the format may change midway. Of these, with another pixel format:
CHANGES = ("h264", "hevc", "mpeg2", "mpeg4", "vp8", "vp9", "mjpeg")
OTHER_PIXELS = ("h264", "hevc", "mpeg2", "vp9", "mjpeg")
ASPECTS = ("h264", "hevc", "mpeg2", "mpeg4")

RATES = ("25", "5", "10", "15", "24000/1001", "24", "30000/1001", "30", "50", "60", "60000/1001", "100", "120")
MPEG_RATES = ("25", "24000/1001", "24", "30000/1001", "30", "50", "60", "60000/1001")
SIZES = ((126, 96), (160, 96), (96, 160), (176, 144))
# The file is shifted by seconds, the video alone is delayed, the first seconds were cut off without encoding again, or
# the recording misses its first packets and so begins between two keyframes.
OFFSETS = (("shifted", 0.7), ("shifted", 1000.0), ("delayed", 0.6), ("delayed", 1.5), ("cut", 0.3), ("cut", 0.7))
# MPEG's clock has 33 bits at 90 kHz: it begins again 1 s after this start.
WRAPS = ("shifted", 95442.717)
TUNED = ("tuned", 25)
GAPS = (("dropped", 0.12), ("dropped", 0.4), ("jump", 1.5), ("jump", 12.0), ("jump", 3600.0))
INTERVALS = ((0.4, None), (None, 0.8), (0.5, 1.0), (0.21, 0.77))
LATE_INTERVALS = ((21.5, 22.3), (22.0, None), (12.04, 24.0))


@dataclass(frozen=True)
class VideoPlan:
    """One video to make and the interval of it to decode. All fields but container and codec have a plain default."""

    container: str
    codec: str
    rate: str = "25"  # frames per second
    frames: int = 50
    size: tuple[int, int] = SIZES[0]  # pixels
    aspect: str = "1"  # width of a pixel over its height
    variable: str | None = None  # sparse: the second half has a third of its frames; jitter: irregular times
    streamed: bool = False  # written to a pipe: no sizes, durations and index
    offset: tuple[str, float] | None = None
    gap: tuple[str, float] | None = None  # in the middle
    joined: bool = False  # two files, one after the other: the times begin again
    change: str | None = None  # of the second half: size, pixels or aspect
    sound: str | None = None  # equal, shorter, longer, earlier or later than the picture
    rotation: int = 0  # degrees, counterclockwise
    extra: str | None = (
        None  # cover, picture (one frame, before the video, not marked), metadata (700 lines), sound-first
    )
    interval: tuple[float | None, float | None] = (None, None)  # start_s, end_s

    def __str__(self) -> str:
        plain = plain_plan(self.container, self.codec)
        values = {field.name: getattr(self, field.name) for field in fields(self)[2:]}
        special = [f"{name}={value!r}" for name, value in values.items() if value != getattr(plain, name)]
        return f"VideoPlan({', '.join([repr(self.container), repr(self.codec), *special])})"


def plain_plan(container: str, codec: str) -> VideoPlan:
    """Return a plan with nothing special."""
    return VideoPlan(container, codec, size=FIXED_SIZES.get(codec, SIZES[0]))


def random_plan(number: int, seed: int) -> VideoPlan:
    """Return a plan. Consecutive numbers go through all containers; each seed gives other plans."""
    generator = random.Random(f"{seed}/{number}")
    name = list(CONTAINERS)[number % len(CONTAINERS)]
    container = CONTAINERS[name]
    codec = generator.choice(container.codecs)
    rate = generator.choice(MPEG_RATES if codec in MPEG else RATES) if generator.random() < 0.6 else "25"
    late = generator.random() < 0.1 and Fraction(rate) <= 30  # an interval that is worth a seek
    seconds = 26.0 if late else generator.choice((1.2, 2.0, 3.0))
    sizes = (*SIZES, (125, 97)) if codec in ODD_SIZES else SIZES
    plan = VideoPlan(
        name,
        codec,
        rate=rate,
        frames=round(Fraction(rate) * Fraction(seconds)),
        size=FIXED_SIZES.get(codec) or generator.choice(sizes),
    )
    offsets = (*OFFSETS, WRAPS, TUNED, TUNED) if container.joins else OFFSETS
    draws: dict[str, tuple[float, tuple[object, ...]]] = {
        "aspect": (0.2, ("4/3", "16/11")),
        "variable": (0.2, ("sparse", "jitter")),
        "streamed": (0.25, (True,)),
        "offset": (0.4, offsets),
        "gap": (0.3, GAPS),
        "joined": (0.35, (True,)),
        "change": (0.4, ("size", "pixels", "aspect")),
        "sound": (0.55, ("equal", "shorter", "longer", "earlier", "later")),
        "rotation": (0.2, (90, 180, 270)),
        "extra": (0.25, ("cover", "picture", "metadata", "sound-first")),
        "interval": (0.8, LATE_INTERVALS) if late else (0.25, INTERVALS),
    }
    for field, (probability, values) in draws.items():
        if generator.random() < probability:
            drawn = replace(plan, **{field: generator.choice(values)})  # type: ignore[arg-type]
            plan = drawn if is_possible(drawn) else plan
    return plan


def minimal_plan(plan: VideoPlan, fails: Callable[[VideoPlan], bool]) -> VideoPlan:
    """Return a plan that still fails, with plain defaults where they do not prevent the failure."""
    plain = plain_plan(plan.container, plan.codec)
    for field in fields(VideoPlan):
        simpler = replace(plan, **{field.name: getattr(plain, field.name)})
        if simpler != plan and is_possible(simpler) and fails(simpler):
            plan = simpler
    return plan


def is_possible(plan: VideoPlan) -> bool:
    """Return whether ffmpeg can make such a video, and the file contains the times of its frames."""
    container = CONTAINERS[plan.container]
    irregular = plan.variable or plan.gap
    one_file_s = plan.frames / float(Fraction(plan.rate)) / (2 if plan.joined else 1)
    offset = plan.offset[0] if plan.offset else None
    # ASF has one time per frame. With B-frames it is that of decoding.
    varies = container.varies and plan.codec not in MPEG and not (plan.container == "asf" and plan.codec in B_FRAMES)
    extras = {
        "cover": plan.container in ("mp4", "m4v", "mkv"),
        "picture": plan.container == "mkv",
        "metadata": plan.container in ("mp4", "mov", "mkv", "webm", "ogv", "nut", "asf"),
        "sound-first": plan.sound is not None,
    }
    return all(
        (
            plan.codec in container.codecs,
            plan.codec not in MPEG or plan.rate in MPEG_RATES,
            container.timed or not (plan.offset or irregular or plan.sound),
            container.shifts or offset in (None, "cut"),
            offset != "cut" or (plan.container != "rm" and plan.offset and one_file_s > plan.offset[1] + 0.8),
            offset != "cut" or not plan.change or plan.container not in ("mpg", "vob"),
            offset != "cut" or not plan.joined or plan.codec not in MPEG,  # the first pictures lack a reference
            varies or not irregular,
            plan.offset != WRAPS or plan.container in ("ts", "m2ts", "mpg", "vob"),
            # Its decoder returns unreadable pictures before the first keyframe if the codec is MPEG-4 Part 2.
            offset != "tuned" or (container.suffix in PACKET_BYTES and plan.codec != "mpeg4"),
            plan.variable != "jitter" or plan.container != "ivf",
            not plan.streamed or (container.streams and plan.codec != "av1"),
            not plan.joined or container.joins,
            not plan.joined or plan.frames >= 50,  # the errors of the decoder at the join are below its limit of 10 %
            not plan.change or _can_change(plan),
            not plan.sound or container.sound is not None,
            not plan.rotation or plan.container in (*ISO, "mkv"),
            plan.extra is None or extras[plan.extra],
            plan.aspect == "1"
            or (plan.codec in ASPECTS and plan.container in ("mp4", "mov", "mkv", "ts", "vob", "h264")),
        )
    )


def _can_change(plan: VideoPlan) -> bool:
    if plan.container in ("mxf", "wtv", "m2v", "m1v", "rm", "asf", "avi", "ogv"):
        return False  # their muxers write one header
    codecs = {"size": CHANGES, "pixels": OTHER_PIXELS, "aspect": ASPECTS}
    return plan.codec in codecs[plan.change or ""]
