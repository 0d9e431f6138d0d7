"""Check that the decoded frames are the complete video, for files whose containers declare a duration but no sizes.

A decoded duration that is shorter than the declared one has many reasons: sound, subtitles or data that outlast the
picture, a video that begins after the clock of the file, a first part without a key frame, gaps that are left out. The
times of the packets, which are read only then, distinguish these from a truncated file.
"""

from lgd.preprocessing.video.packets import read_packets
from lgd.preprocessing.video.probe import SourceInfo
from lgd.preprocessing.video.rejections import Limits, Rejected


def check_complete(video: int, source: SourceInfo, decoded_s: float, *, limits: Limits) -> None:
    """Raise Rejected ("truncated") if an open file, or its decoded frames, end long before the declared duration.

    decoded_s: seconds of all decoded frames. The file ends early if the last packet (of this stream if its own duration
    is declared, else of any stream) ends before the declared end. This is not checked if the container declares a size
    in bytes and the file has them all: some programs declare a duration that is too long. The frames end early if they
    are shorter than the packets of the video, counted from the first key frame and without gaps.
    The tolerance is 0.5 s or 5 % of the duration, whichever is more; for the decoded frames it is 1 s or 10 % if the
    declared duration is that of the longest stream.
    """
    declared = source.duration_s
    if declared is None or _missing(decoded_s, declared, source) <= 0:
        return
    packets = read_packets(video, source.timed_streams, limits)
    own = packets.get(source.index)
    counted = [stream for stream in ([own] if source.exact_duration else packets.values()) if stream and stream.count]
    if own and counted:
        first, last = min(stream.first_s for stream in counted), max(stream.end_s for stream in counted)
        # Some programs declare when a stream ends, others how long it is: the packets have to reach one of the two.
        end = declared if source.end_s is None else source.end_s
        # ffmpeg's WTV writer adds the delay of a stream to the end.
        reached = max(last, last - first) + own.first_s - first
        if not source.complete and end - reached > _tolerance(end - first if end > first else end, exact=True):
            raise Rejected("truncated", f"the file ends after {reached:.2f} s of the declared {end:.2f} s")
        if _missing(decoded_s, min(declared, own.decodable_s()), source) <= 0:
            return
    raise Rejected("truncated", f"only {decoded_s:.2f} s of the declared {declared:.2f} s were decoded")


def _missing(seconds: float, complete_s: float, source: SourceInfo) -> float:
    """Return how many seconds more than the tolerance are missing of a complete duration; 0 or less if none are."""
    return complete_s - seconds - _tolerance(complete_s, exact=source.exact_duration)


def _tolerance(duration_s: float, *, exact: bool) -> float:
    minimum, fraction = (0.5, 0.05) if exact else (1.0, 0.1)
    return max(minimum, fraction * duration_s)
