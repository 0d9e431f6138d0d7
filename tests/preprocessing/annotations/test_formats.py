from pathlib import Path

import pytest

from lgd.pipeline.console.errors import UserError
from lgd.preprocessing.annotations.formats import recognize
from tests.preprocessing.annotations.conftest import write_file


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("a.csv", "path,label\na.mp4,x\n", "csv"),
        ("a.csv", "\ufeff Path , Label\na.mp4,x\n", "csv"),
        ("a.csv", "split,label,path\n", "csv"),
        ("a.csv", "file,class\na,b\n", "csv"),
        ("a.txt", "label,youtube_id,time_start,time_end,split\n", "kinetics"),
        ("train.csv", "a/b.mp4 3\n", "video list"),
        ("list.txt", "a b/c, d 7.mp4 12\n", "video list"),
        ("list.txt", "a/b.MKV\t0\r\n", "video list"),
        ("list.txt", "folder/without_extension 3\n", "video list"),
        ("trainlist01.txt", "a.mp4 0\nb.mp4 1\n", "video list"),
        ("trainlist01.txt", "Archery/v_Archery_g01_c01.avi 1\n", "ucf101"),
        ("testlist01.txt", "Archery/v_Archery_g01_c01.avi\n", "ucf101"),
        ("wave_test_split1.txt", "a.avi 1\nb.avi 0\n", "hmdb51"),
        ("my_test_split1.txt", "a.avi 1\nb.avi 17\n", "video list"),
        ("my_test_split1.txt", "wave/a.avi 1\n", "video list"),
        ("a.csv", "a/b.mp4,riding a bike\n", "csv without header"),
        ("a.csv", '"a, b.mp4",3\n', "csv without header"),
        ("a.csv", "blocking/x.mp4,blocking,3,1\n", "moments in time"),
        ("a.csv", "-5KQ66BBWC4,0902,0.077,0.151,0.283,0.811,80,1\n", "ava"),
        ("a.csv", "-5KQ66BBWC4,0902,,,,,\n", "ava"),
        ("a.csv", "-5KQ66BBWC4,0902\n", "ava"),
        ("a.json", '\n{"version": "1.3", "database": {"x": {"subset": "testing", "annotations": []}}}', "activitynet"),
        ("a.json", '{"v_x": {"duration_second": 3, "annotations": []}}', "activitynet"),
        ("a.json", '[{"vid_name": "x", "label": 0}]', "diving48"),
    ],
)
def test_the_content_decides_the_format(tmp_path: Path, name: str, text: str, expected: str) -> None:
    assert recognize(write_file(tmp_path, text, name)) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("\n \n", "is empty"),
        ("path;label\na.mp4;b\n", "is separated by semicolons: save it with commas"),
        ("a.mp4;jump\n", "is separated by semicolons: save it with commas"),
        ("path\tlabel\na.mp4\tb\n", "is separated by tabs: save it with commas"),
        ("a.mp4\tjump\n", "is separated by tabs: save it with commas"),
        ("a.mp4 jump high\n", "line 1: the label 'jump high' is not a number"),
        ("a.mp4 1 2 3\n", r"line 1: 3 numbers after the path \(1 2 3\): .*give one label per video"),
        ("a.mp4,1,2,3\n", r"line 1: 3 numbers after the path \(1 2 3\): .*give one label per video"),
        ("some/folder 163 1\n", "lists folders of frames .* which are not videos"),
        ("some/folder 10 163 1\n", "lists folders of frames"),
        ("a.mp4,jump,train\n", "has 3 columns but no header: add a first line .*path,label,split"),
        ("applauding,0\nbending,1\n", "is a list of classes, not of videos"),
        ('[["Back", "15som"]]', "is a list of classes, not of videos"),
        ('{"x": {"annotations": {"label": "a"}, "subset": "train"}}', "is a JSON file of Kinetics: give its CSV"),
        ('[{"id": "1", "label": "a", "template": "b"}]', "JSON file of Something-Something, which cannot be read"),
        ('{"path": ', "line 1: not valid JSON"),
        ("[" * 100_000, "not valid JSON"),
        ('{"a": 1}', "not in a known format .*accepted formats: CSV with the columns path,label; Kinetics CSV; .*AVA"),
        ("[]", "not in a known format"),
        ("{}", "not in a known format"),
        ("some words\n", "not in a known format .*begins with 'some words'.*; mmaction2 or SlowFast video list; "),
        ("x" * 5000, "begins with 'x{60}...'"),
        (b"path,label\n\xff,a\n", "not UTF-8 text"),
        ("path,label\na,b\n".encode("utf-16"), "not UTF-8 text"),
        ("path,label\na,b\n".encode("utf-16-le"), "zero bytes.*: save the file as UTF-8"),
        (b"\0\0\0\x20ftypisom", "is not UTF-8 text"),
        (f"a.mp4 {'9' * 5000}\n", "the label '9+' is not a number"),
        ('{"a": ' + "9" * 5000 + "}", "not valid JSON"),
        ("1 " * 100_000 + "x", "not in a known format"),
    ],
)
def test_other_files_are_refused_with_one_line(tmp_path: Path, text: str | bytes, message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        recognize(write_file(tmp_path, text, "list.txt"))
    assert "\n" not in str(error.value)
