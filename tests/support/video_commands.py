"""The shell commands that make a planned video. They call the ffmpeg in the environment variable FFMPEG."""

import os
import shlex
import subprocess
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

from lgd.preprocessing.video.ffmpeg_child import ffmpeg_binary
from tests.support.numbered_videos import numbered_source
from tests.support.video_plans import CONTAINERS, PACKET_BYTES, VideoPlan

GOP, B = ("-g", "12"), ("-bf", "2")
X265 = "log-level=error:bframes=2:keyint=12:min-keyint=12:scenecut=0:pools=none:frame-threads=1"
LIBVPX = ("-deadline", "realtime", "-cpu-used", "8", "-b:v", "1M", *GOP)
# The encoder of each codec: fast, a keyframe every 12 frames, and B-frames where the codec has them.
ENCODERS: dict[str, tuple[str, ...]] = {
    "h264": ("libx264", "-preset", "ultrafast", *GOP, *B, "-threads", "1"),
    "hevc": ("libx265", "-preset", "ultrafast", "-x265-params", X265),
    "av1": ("libaom-av1", "-cpu-used", "8", "-usage", "realtime", *GOP, "-threads", "1"),
    "vp8": ("libvpx", *LIBVPX, "-auto-alt-ref", "0"),
    "vp9": ("libvpx-vp9", *LIBVPX),
    "mpeg4": ("mpeg4", "-q:v", "4", *GOP, *B),
    "mpeg2": ("mpeg2video", "-q:v", "4", *GOP, *B),
    "mpeg1": ("mpeg1video", "-q:v", "4", *GOP, *B),
    "mjpeg": ("mjpeg", "-q:v", "4"),
    "theora": ("libtheora", "-q:v", "8", *GOP),
    "wmv2": ("wmv2", "-q:v", "4", *GOP),
    "wmv1": ("wmv1", "-q:v", "4", *GOP),
    "msmpeg4v3": ("msmpeg4", "-q:v", "4", *GOP),
    "flv1": ("flv", "-q:v", "4", *GOP),
    "h263": ("h263", "-q:v", "4", *GOP),
    "rv10": ("rv10", "-q:v", "4", *GOP),
    "ffv1": ("ffv1", *GOP),
    "huffyuv": ("huffyuv",),
    "prores": ("prores_ks",),
    "qtrle": ("qtrle",),
    "png": ("png",),
    "gif": ("gif",),
    "rawvideo": ("rawvideo",),
}
PIXELS = {
    "mjpeg": "yuvj420p", "huffyuv": "yuv422p", "prores": "yuv422p10le", "qtrle": "rgb24", "png": "rgb24", "gif": "bgr8",
}  # fmt: skip
OTHER_PIXELS = {"mjpeg": "yuvj444p", "mpeg2": "yuv422p"}
# The file from which a video is copied, and the parts that are joined to one whose format changes.
COPIED_FROM = {
    "h264": "mp4", "hevc": "mp4", "mpeg4": "mp4", "av1": "mp4", "vp8": "mkv", "vp9": "mkv", "rv10": "rm",
    "prores": "mov", "qtrle": "mov", "png": "mov",
}  # fmt: skip
PARTS = {"h264": "ts", "hevc": "ts", "mpeg2": "ts", "mpeg4": "ts", "vp8": "mkv", "vp9": "mkv", "mjpeg": "mkv"}
FORMATS = {"mkv": "matroska", "ts": "mpegts", "m2ts": "mpegts", "mpg": "mpeg", "ogv": "ogg"}


class NotMadeError(Exception):
    """ffmpeg cannot make a video."""


def make(plan: VideoPlan, folder: Path) -> Path:
    """Make a planned video in a folder. Raises NotMadeError with ffmpeg's message."""
    name, lines = commands(plan)
    done = subprocess.run(
        ["sh", "-ec", "\n".join(lines)],
        cwd=folder,
        env={**os.environ, "FFMPEG": str(ffmpeg_binary())},
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    if done.returncode:
        raise NotMadeError(done.stderr.strip()[:600])
    return folder / name


def commands(plan: VideoPlan) -> tuple[str, list[str]]:
    """Return the name of the file, and the commands that make it in the current folder."""
    suffix = CONTAINERS[plan.container].suffix
    out = f"video.{suffix}"
    if plan.joined:
        half = plan.frames // 2
        lines = [
            *_one_file(replace(plan, joined=False, frames=half), f"joined0.{suffix}", first=0),
            *_one_file(replace(plan, joined=False, frames=plan.frames - half), f"joined1.{suffix}", first=half),
            f"cat joined0.{suffix} joined1.{suffix} > {out}",
        ]
    else:
        lines = _one_file(plan, out, first=0)
    if plan.offset and plan.offset[0] == "tuned":
        start = 1 + PACKET_BYTES[suffix] * int(plan.offset[1])
        lines.append(f"tail -c +{start} {out} > tuned.{suffix} && mv tuned.{suffix} {out}")
    return out, lines


def _one_file(plan: VideoPlan, out: str, *, first: int) -> list[str]:
    """Return the commands that make one file; its first frame shows the number `first`."""
    cut = plan.offset is not None and plan.offset[0] == "cut"
    if not (cut or plan.change or plan.rotation or plan.extra in ("cover", "picture")):
        return [_ffmpeg(*_encoded(plan, first=first), *_final_options(plan), out=out, plan=plan)]
    lines, source = _changing(plan, first=first) if plan.change else _whole(plan, first=first)
    if plan.rotation:
        source = ["-display_rotation", str(plan.rotation), *source]
    if plan.offset and cut:
        source = ["-ss", str(plan.offset[1]), *source]
    copy = [*source, "-map", "0"]
    if plan.extra in ("cover", "picture"):
        lines.append(_ffmpeg("-f", "lavfi", "-i", "testsrc2=s=320x240", "-frames:v", "1", out="cover.jpg"))
    if plan.extra == "cover":
        copy = [*source, "-i", "cover.jpg", "-map", "0", "-map", "1", "-disposition:v:1", "attached_pic"]
    if plan.extra == "picture":
        copy = ["-i", "cover.jpg", *source, "-map", "0", "-map", "1"]
    return [*lines, _ffmpeg(*copy, "-c", "copy", *_final_options(plan), out=out, plan=plan)]


def _whole(plan: VideoPlan, *, first: int) -> tuple[list[str], list[str]]:
    """Return the commands that make a file to copy from, and the input options to read it."""
    mp4 = plan.container != "asf"  # MP4 does not hold its sound
    name = f"whole.{COPIED_FROM.get(plan.codec, 'nut') if mp4 else 'nut'}"
    return [_ffmpeg(*_encoded(plan, first=first), out=name)], ["-i", name]


def _changing(plan: VideoPlan, *, first: int) -> tuple[list[str], list[str]]:
    """Return the commands that make two parts of different formats, and the input options to read both as one."""
    kind = PARTS[plan.codec]
    half = replace(plan, frames=plan.frames // 2)
    other = replace(plan, frames=plan.frames - half.frames)
    pixels = OTHER_PIXELS.get(plan.codec, "yuv444p") if plan.change == "pixels" else None
    if plan.change == "size":
        other = replace(other, size=(plan.size[0] + 34, plan.size[1] + 32))
    if plan.change == "aspect":
        other = replace(other, aspect="2")
    lines = [
        _ffmpeg(*_encoded(half, first=first), out=f"part0.{kind}"),
        _ffmpeg(*_encoded(other, first=first + half.frames, pixels=pixels), out=f"part1.{kind}"),
        f"printf 'file part0.{kind}\\nfile part1.{kind}\\n' > parts.txt",
    ]
    return lines, ["-f", "concat", "-i", "parts.txt"]


def _encoded(plan: VideoPlan, *, first: int, pixels: str | None = None) -> list[str]:
    """Return the options that generate and encode picture and sound."""
    rate, container = Fraction(plan.rate), CONTAINERS[plan.container]
    seconds = float(plan.frames / rate)
    delay = 0.4 if plan.sound == "earlier" else 0.0
    if plan.offset and plan.offset[0] == "delayed":
        delay += plan.offset[1]
    options = ["-itsoffset", str(delay)] if delay else []
    options += ["-f", "lavfi", "-i", _picture(plan, rate, first=first, pixels=pixels)]
    if plan.sound:
        length = {"shorter": 0.5 * seconds, "longer": seconds + 4}.get(plan.sound, seconds)
        options += ["-itsoffset", "0.5"] if plan.sound == "later" else []
        options += ["-f", "lavfi", "-i", f"sine=r=48000:d={length}"]
        options += ["-map", "1", "-map", "0"] if plan.extra == "sound-first" else []
        options += ["-c:a", container.sound or "", "-ac", "2"]
        options += ["-ar", "44100"] if plan.container == "flv" else []
    options += ["-c:v", *ENCODERS[plan.codec], "-fps_mode", "passthrough"]
    if plan.container in ("mpg", "vob"):
        # A packet has one time. Pictures of some kilobytes do not share it.
        options += ["-b:v", "3M", "-minrate", "3M", "-maxrate", "3M", "-bufsize", "1M"]
    options += ["-bf", "0"] if plan.container == "avi" else []  # AVI has no times
    options += ["-enc_time_base", "1:1000"] if plan.variable == "jitter" else []
    return options


def _picture(plan: VideoPlan, rate: Fraction, *, first: int, pixels: str | None) -> str:
    """Return the lavfi source of the numbered pictures with their times."""
    aspect = "0" if plan.codec == "rv10" else plan.aspect
    pixels = pixels or PIXELS.get(plan.codec, "yuv420p")
    filters = [numbered_source(rate, plan.frames, plan.size, first=first), f"format={pixels}", f"setsar={aspect}"]
    middle = plan.frames // 2
    middle_s = float(middle / rate)
    if plan.variable == "jitter":
        frame_ms = float(1000 / rate)
        filters.append(f"settb=1/1000,setpts='floor(N*{frame_ms}+mod(N*7,11)*{frame_ms / 20})'")
    if plan.variable == "sparse":
        filters.append(f"select='lt(n,{middle})+not(mod(n,3))'")
    if plan.gap and plan.gap[0] == "dropped":
        filters.append(f"select='not(between(t,{middle_s:.3f},{middle_s + plan.gap[1]:.3f}))'")
    if plan.gap and plan.gap[0] == "jump":
        filters.append(f"setpts='PTS+gte(T,{middle_s:.3f})*{plan.gap[1]}/TB'")
    return ",".join(filters)


def _final_options(plan: VideoPlan) -> list[str]:
    """Return the options of the muxer that writes the final file."""
    container = CONTAINERS[plan.container]
    options = list(container.options)
    if plan.offset and plan.offset[0] == "shifted":
        options += ["-output_ts_offset", str(plan.offset[1])]
    if plan.extra == "metadata":
        options += ["-metadata", "comment=" + "\n".join(f"line {number}" for number in range(700))]
    if plan.streamed and container.suffix in ("mkv", "webm"):
        options += ["-live", "1"]
    if plan.change and container.sound == "aac" and plan.sound and PARTS[plan.codec] == "ts":
        options += ["-bsf:a", "aac_adtstoasc"]
    return options


def _ffmpeg(*arguments: str, out: str, plan: VideoPlan | None = None) -> str:
    """Return one command line. plan: of the final file, which may have to be written to a pipe."""
    words = ["-v", "error", "-nostdin", "-y", *arguments]
    if plan and plan.streamed:
        suffix = CONTAINERS[plan.container].suffix
        return f'"$FFMPEG" {shlex.join([*words, "-f", FORMATS.get(suffix, suffix), "pipe:1"])} > {out}'
    return f'"$FFMPEG" {shlex.join([*words, out])}'
