import json
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lgd.pipeline.dataset.index_format import UNLABELLED
from lgd.training.fusion.comparison import compare, mcnemar
from lgd.training.fusion.fuse import fuse, make_rule
from lgd.training.fusion.fuse_files import Fusion
from lgd.training.fusion.join import join
from tests.training.fusion.test_join import with_other_predictions
from tests.training.scoring.test_scores import random_scores

NAMES = ("a", "b", "c")


def three_inputs(videos: int = 60, seed: int = 0, unlabelled: tuple[int, ...] = ()) -> Fusion:
    first = random_scores("a", videos)
    first.labels[list(unlabelled)] = UNLABELLED
    joined = join([with_other_predictions(first, seed + i, name) for i, name in enumerate(NAMES)])
    rule = make_rule(3, (3.0, 2.0, 1.0))
    return Fusion(joined, fuse(joined, rule), fuse(joined, make_rule(3)), None)


@settings(deadline=None, max_examples=20)
@given(st.integers(1, 40), st.integers(0, 99))
def test_what_fusion_changed_equals_a_count_video_by_video(videos: int, seed: int):
    fusion = three_inputs(videos, seed)
    result = compare(fusion)
    document = result.document()
    tables = [*fusion.joined.inputs, fusion.fused]
    predicted = [[row.index(max(row)) for row in table.probabilities.tolist()] for table in tables]
    labels = fusion.fused.labels.tolist()
    right = [[guess == label for guess, label in zip(each, labels, strict=True)] for each in predicted]
    for name, before in zip(NAMES, right, strict=False):
        pairs = list(zip(before, right[3], strict=True))
        change = document["changes"][name]
        assert (change["fixed"], change["broken"]) == (pairs.count((False, True)), pairs.count((True, False)))
        assert document["inputs"][name]["top1"] == pytest.approx(sum(before) / videos)
        gain = document["fused"]["top1"] - document["inputs"][name]["top1"]
        assert gain == pytest.approx((change["fixed"] - change["broken"]) / videos)
    columns = list(zip(*right[:3], strict=True))
    assert document["oracle_top1"] == pytest.approx(sum(map(any, columns)) / videos)
    guesses = list(zip(*predicted[:3], strict=True))
    assert document["agreement"] == pytest.approx(sum(len(set(each)) == 1 for each in guesses) / videos)
    assert document["agreements"][0][2] == pytest.approx(sum(x == z for x, _, z in guesses) / videos)
    best = max(range(3), key=lambda i: (sum(right[i]), -i))
    assert document["compared_to"] == NAMES[best]
    assert {field: document[field] for field in ("fixed", "broken", "p_value")} == document["changes"][NAMES[best]]
    assert sum(row["right"] for row in document["per_class"]) == sum(right[3])


def test_the_p_value_is_that_of_a_fair_coin():
    for fixed in range(12):
        for broken in range(12):
            n, minority = fixed + broken, min(fixed, broken)
            tail = sum(Fraction(math.comb(n, k), 2**n) for k in range(minority + 1))
            assert mcnemar(fixed, broken) == pytest.approx(float(min(Fraction(1), 2 * tail)))
    assert mcnemar(5, 0) == 0.0625
    assert 0 < mcnemar(2000, 1500) < 1e-15
    assert mcnemar(9000, 9000) == 1


def test_without_labels_there_are_no_accuracies_but_weights_and_agreement():
    result = compare(three_inputs(unlabelled=tuple(range(60))))
    document = result.document()
    assert document["inputs"] == dict.fromkeys(NAMES)
    for field in ("fused", "equal", "fixed", "broken", "oracle_top1", "p_value", "compared_to", "per_class"):
        assert document[field] is None, field
    assert document["unlabelled"] == 60
    assert document["weights"] == pytest.approx([1 / 2, 1 / 3, 1 / 6])
    assert 0 < document["agreement"] < 1
    lines = [line for line in result.lines() if isinstance(line, str)]
    assert lines[0] == "no accuracy: 60 of 60 videos have no label (v0, v1, v2 and 57 more)"
    assert lines[1].startswith("the inputs agree on ")
    assert json.loads(json.dumps(document)) == document


def test_accuracies_are_those_of_the_labeled_videos():
    complete, result = compare(three_inputs()), compare(three_inputs(unlabelled=(3, 8)))
    assert result.fused is not None
    assert complete.fused is not None
    assert result.fused["videos"] == 58
    assert [metrics and metrics["videos"] for metrics in result.inputs.values()] == [58, 58, 58]
    assert result.oracle_top1 is not None
    assert complete.oracle_top1 is not None
    assert 0 <= round(complete.oracle_top1 * 60) - round(result.oracle_top1 * 58) <= 2
    right = round(result.fused["top1"] * 58)
    for name, change in result.changes.items():
        before, metrics = result.inputs[name], change
        assert before is not None
        assert metrics is not None
        assert round(before["top1"] * 58) + metrics["fixed"] - metrics["broken"] == right
    assert result.agreement == complete.agreement  # of all videos
    lines = [line for line in result.lines() if isinstance(line, str)]
    assert lines[0] == "accuracy of the labeled videos: 2 of 60 videos have no label (v3, v8)"


def test_the_lines_compare_the_fusion_with_the_best_single_input():
    result = compare(three_inputs())
    document = result.document()
    text = " ".join(line for line in result.lines() if isinstance(line, str))
    best, fixed, broken = result.compared_to, result.fixed, result.broken
    assert f"compared with {best}, the best single input, fusion fixed {fixed} videos and broke {broken} (" in text
    assert f"{document['oracle_top1']:.1%} (oracle)" in text
    assert np.isfinite(document["p_value"])


def test_the_document_has_the_fields_of_version_0_1():
    document = compare(three_inputs(), out="fused.parquet").document()
    assert list(document) == [
        "inputs",
        "fused",
        "equal",
        "split",
        "videos",
        "unlabelled",
        "space",
        "weights",
        "temperatures",
        "fitted_on",
        "dropped",
        "fit",
        "agreement",
        "agreements",
        "changes",
        "compared_to",
        "fixed",
        "broken",
        "p_value",
        "oracle_top1",
        "per_class",
        "out",
    ]
    assert document["out"] == "fused.parquet"
    assert json.loads(json.dumps(document)) == document
