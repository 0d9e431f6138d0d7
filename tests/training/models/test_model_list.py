"""`lgd models`."""

import pytest

from lgd.pipeline.console.errors import UsageError
from lgd.training.models.config import MODELS
from lgd.training.models.model_list import list_models


def test_every_family_is_listed_at_both_stages_and_3d_families_with_both_clip_lengths():
    models = list_models(classes=400)
    keys = [(row.name, row.stage, row.input[1]) for row in models.rows]
    expected = [(n, s, t) for n, f in MODELS.items() for t in ((16, 128) if f.temporal else (3,)) for s in (1, 2)]
    assert keys == expected
    sizes = dict(zip(keys, models.rows, strict=True))
    short, long = sizes["lgd3d_r101", 1, 16], sizes["lgd3d_r101", 1, 128]
    assert short.parameters == long.parameters
    assert 4 < long.gmac / short.gmac < 8  # conv1 has 8 times the frames, the layers after pool1 4 times
    assert sizes["lgd2d_r50", 1, 3].input == (3, 3, 224, 224)


def test_the_json_document_is_a_list_with_one_object_per_network():
    models = list_models(classes=7)
    document = models.document()
    assert len(document) == len(models.rows)
    assert document[0].keys() == {"name", "stage", "classes", "parameters", "gmac", "input"}
    assert (document[0]["classes"], document[0]["input"]) == (7, [3, 16, 112, 112])


def test_a_network_needs_a_class():
    with pytest.raises(UsageError, match="--classes must be 1 or more, not 0"):
        list_models(classes=0)
