"""The input of every ffmpeg process: an open video file, and which formats of files are accepted."""

import os

import ffmpeg

from lgd.preprocessing.video.rejections import Limits

# Containers that hold one video in one file. No other container is opened, whatever the file name: playlists and
# scripts (hls, dash, concat, sdp, imf, ...) refer to other files and addresses, and image lists to many files.
CONTAINERS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,mpegvideo,m4v,h264,hevc,av1,obu,ivf,flv,asf,ogg,gif,rm,"
    "dv,mxf,gxf,nut,wtv,mjpeg,yuv4mpegpipe"
)
ACCEPTED = "MP4, MOV, 3GP, Matroska, WebM, AVI, MPEG, MPEG-TS, FLV, ASF, WMV, Ogg, GIF, RealMedia, MXF, Motion JPEG"


def video_input(video: int, limits: Limits, **options: object) -> ffmpeg.nodes.FilterableStream:
    """Return the open file as ffmpeg's input, restricted so that it cannot open other files or addresses."""
    if os.pread(video, 3, 0) == b"\xff\xd8\xff":
        options["format"] = "mjpeg"  # else ffmpeg takes it for a single picture: the descriptor has no file extension
    return ffmpeg.input(
        f"file:/dev/fd/{video}",
        protocol_whitelist="file",
        format_whitelist=CONTAINERS,
        threads=1,
        flags="bitexact",
        max_pixels=2 * limits.pixels + 128 * 128,  # decoders pad to full blocks; `decode` checks the exact limit
        **options,
    )


def command_line(verbosity: str, output: ffmpeg.nodes.OutputStream) -> list[str]:
    """Return ffmpeg's arguments; every message is a line of its own that starts with its level."""
    return ["-hide_banner", "-nostdin", "-nostats", "-loglevel", f"repeat+level+{verbosity}", *output.get_args()]
