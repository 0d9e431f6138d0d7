from lgd.preprocessing.annotations.entries import safe_key


def test_a_key_is_the_same_in_every_version() -> None:
    """Keys name the videos of datasets that exist: changing them orphans those."""
    assert safe_key("bend/s01_006") == "bend-s01_006"
    assert safe_key("Ünïcode & spaces/a.b") == "Unicode_spaces-a_b"
    assert safe_key("動画") == "6ddc42fa44"
