"""The messages of ffmpeg."""

import re

from lgd.preprocessing.video.ffmpeg_log import LINE_CHARACTERS, FfmpegLog


def test_an_endless_log_stays_small() -> None:
    log = FfmpegLog()
    for _ in range(1000):
        log.feed(b"x" * 10_000)
        log.feed(b"line\n" * 100)
    log.close()
    lines = list(log.lines())
    assert len(lines) <= 500
    assert max(map(len, lines)) <= LINE_CHARACTERS


def test_the_first_error_is_one_line_without_addresses_and_descriptors() -> None:
    log = FfmpegLog()
    log.feed(b"[info] fine\n[mov @ 0x55d0] [error] cannot read file:/dev/fd/")
    log.feed(b"17: no index\n[fatal] later\n")
    log.close()
    assert log.first_error() == "cannot read : no index"
    assert FfmpegLog().first_error() == "ffmpeg printed no error message"


def test_lines_that_match_a_pattern_are_counted_beyond_those_that_are_kept() -> None:
    log = FfmpegLog({"corrupt": re.compile("corrupt frame")})
    for number in range(2000):
        log.feed(f"[error] corrupt frame {number}\n[info] fine\n".encode())
    log.close()
    assert log.counts == {"corrupt": 2000}
    assert log.last["corrupt"].string == "[error] corrupt frame 1999"
    assert len(list(log.lines())) < 2000


def test_the_first_error_is_found_beyond_the_lines_that_are_kept_and_is_no_text_of_the_file() -> None:
    log = FfmpegLog()
    log.feed(b"[info]     title           : [error] a title\n" * 600)
    log.feed(b"[in#0/mov @ 0x55d0] [error] the reason\n[error] later\n")
    log.feed(b"[info] fine\n" * 600)
    assert "the reason" not in "".join(log.lines())
    assert log.first_error() == "the reason"


def test_text_that_the_file_contains_matches_no_pattern() -> None:
    log = FfmpegLog({"corrupt": re.compile("corrupt frame")})
    log.feed(b"[info]     title           : corrupt frame\n                    : corrupt frame\n")
    log.feed(b"[info]       title           : corrupt frame\n[h264 @ 0x5] [dec:h264 @ 0x6] [error] corrupt frame\n")
    assert log.counts == {"corrupt": 1}


def test_every_line_is_handed_on() -> None:
    lines: list[str] = []
    log = FfmpegLog(on_line=lines.append)
    log.feed(b"".join(b"line %d\n" % number for number in range(2000)) + b"end")
    log.close()
    assert lines == [*(f"line {number}" for number in range(2000)), "end"]
