"""Initialization, weights of ImageNet networks, and transfer between our networks."""

import functools
import http.server
import os
import threading
from pathlib import Path

import pytest
import safetensors.torch
import torch

from lgd.pipeline.console.errors import UserError
from lgd.training.models.config import MODELS, Family, ModelConfig
from lgd.training.models.lgd import Network
from lgd.training.models.weights import load_imagenet, read_state, transfer
from lgd.training.models.zoo import build
from tests.training.models.resnets import State, plain_resnet, torchvision_resnet


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = (2, 1, 2, 1)
    monkeypatch.setitem(MODELS, "small3d", Family(blocks, True, "lgd", frames=16, size=32, width=4))
    monkeypatch.setitem(MODELS, "small2d", Family(blocks, False, "lgd", frames=3, size=64, width=4))
    monkeypatch.setitem(MODELS, "deeper", Family((2, 1, 3, 1), True, "lgd", frames=16, size=32, width=4))
    monkeypatch.setitem(MODELS, "wider", Family(blocks, True, "lgd", frames=16, size=32, width=8))


def saved(state: State, path: Path) -> Path:
    if path.suffix == ".safetensors":
        safetensors.torch.save_file(state, path)
    else:
        torch.save(state, path)
    return path


def same(network: Network, state: State, names: set[str]) -> bool:
    return all(torch.equal(network.state_dict()[name], state[name]) for name in names)


def copied(network: Network) -> State:
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


def test_from_scratch_is_xavier_with_zero_biases():
    network = build(ModelConfig("lgd3d_nano"), classes=50, channels=3)
    weight = network.get_parameter("res4.1.unit.spatial.conv.weight")
    fan_in, fan_out = weight.shape[1] * 9, weight.shape[0] * 9
    bound = (6 / (fan_in + fan_out)) ** 0.5
    assert 0.99 * bound < weight.abs().max() <= bound
    assert weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.05)
    for path in ("local", "global"):
        assert network.get_parameter(f"{path}_head.weight").any()
        assert not network.get_parameter(f"{path}_head.bias").any()
    assert all(weight.eq(1).all() for name, weight in network.named_parameters() if name.endswith("bn.weight"))


def test_zero_last_bn_starts_every_unit_as_its_shortcut():
    network = build(ModelConfig("small3d", zero_last_bn=True), classes=3, channels=3)
    for name, weight in network.named_parameters():
        if name.endswith("bn.weight"):
            assert weight.any() == (".expand." not in name), name


@pytest.mark.parametrize("name", ["lgd3d_r50", "lgd2d_r50", "p3d_r50"])
def test_still_clip_with_imagenet_weights_equals_the_2d_resnet(name, tmp_path):
    """3D families have no spatial pooling after conv1 (Table 1); 2D families have the pooling of ResNet."""
    state = torchvision_resnet((3, 4, 6, 3), width=64)
    network = build(ModelConfig(name), classes=4, channels=3).eval()
    load_imagenet(network, saved(state, tmp_path / "resnet50.safetensors"))
    frame = torch.randn(1, 3, 48, 64)
    with torch.no_grad():
        expected = plain_resnet(state, frame, max_pool=not MODELS[name].temporal)
        still = frame[:, :, None].expand(-1, -1, MODELS[name].frames, -1, -1)
        local = network(still).local
    for t in range(local.shape[2]):
        assert (local[:, :, t] - expected).abs().max() < 1e-5 * expected.abs().max()


def test_imagenet_report_names_every_tensor_once(tmp_path):
    state = torchvision_resnet((2, 1, 2, 1), width=4)
    network = build(ModelConfig("small3d"), classes=3, channels=2)
    before = copied(network)
    report = load_imagenet(network, saved(state, tmp_path / "resnet.pth"))
    assert sorted((*report.loaded, *report.adapted, *report.new)) == sorted(before)
    assert set(report.unused) == {"fc.weight", "fc.bias"}
    assert {name.split(".")[0] for name in report.new if "w_g" not in name and "w_xg" not in name} == {
        "local_head",
        "global_head",
    }
    assert {name for name in report.new if name.startswith("res")} == {
        name for name in before if any(part in name for part in (".w_gx.", ".w_gg.", ".w_xg.inner."))
    }
    assert same(network, before, set(report.new))
    assert {way: {n for n, w in report.adapted.items() if w == way} for way in report.adapted.values()} == {
        "mean over 3 input channels": {"stem.spatial.conv.weight"},
        "identity": {name for name in before if ".temporal." in name},
        "zero": {name for name in before if name.endswith(".w_xg.outer.weight")},
    }
    after = network.state_dict()
    mean = state["conv1.weight"].mean(1)
    torch.testing.assert_close(after["stem.spatial.conv.weight"][:, 0, 0], mean)
    torch.testing.assert_close(after["stem.spatial.conv.weight"][:, 1, 0], mean)
    assert torch.equal(after["res4.1.unit.spatial.conv.weight"][:, :, 0], state["layer3.1.conv2.weight"])
    assert torch.equal(after["res3.0.unit.shortcut.bn.running_var"], state["layer2.0.downsample.1.running_var"])
    assert not any(after[name].any() for name, way in report.adapted.items() if way == "zero")
    assert len(str(report).splitlines()) <= 2
    assert "resnet.pth" in str(report)


def test_both_factors_of_w_xg_learn_after_imagenet(tmp_path):
    network = build(ModelConfig("small3d"), classes=3, channels=3)
    load_imagenet(network, saved(torchvision_resnet((2, 1, 2, 1), width=4), tmp_path / "resnet.pth"))
    before = copied(network)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    video, label = torch.randn(4, 3, 16, 32, 32), torch.tensor([0, 1, 2, 0])
    for _ in range(2):
        optimizer.zero_grad()
        network.loss(network(video), label).total.backward()
        optimizer.step()
    factors = [name for name in before if ".w_xg." in name]
    assert len(factors) == 12
    for name in factors:
        assert not torch.equal(network.state_dict()[name], before[name]), name
        assert network.get_parameter(name).grad.abs().max() > 0, name  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("blocks", "width", "message"), [((2, 1, 3, 1), 4, "2, 1, 3, 1"), ((2, 1, 2, 1), 8, "a different width")]
)
def test_an_imagenet_network_of_a_different_size_is_refused_and_changes_nothing(blocks, width, message, tmp_path):
    network = build(ModelConfig("small3d"), classes=3, channels=3)
    before = copied(network)
    with pytest.raises(UserError, match=message) as error:
        load_imagenet(network, saved(torchvision_resnet(blocks, width), tmp_path / "resnet.pth"))
    assert "resnet.pth" in str(error.value)
    assert "\n" not in str(error.value)
    assert same(network, before, set(before))


def test_a_resnet_of_basic_blocks_and_a_different_network_are_refused(tmp_path):
    network = build(ModelConfig("small3d"), classes=3, channels=3)
    basic = {name: value for name, value in torchvision_resnet((2, 1, 2, 1), 4).items() if "3.weight" not in name}
    with pytest.raises(UserError, match="bottlenecks"):
        load_imagenet(network, saved(basic, tmp_path / "resnet18.pth"))
    with pytest.raises(UserError, match="not a ResNet"):
        load_imagenet(network, saved({"features.0.weight": torch.zeros(1)}, tmp_path / "vgg.pth"))


class Trap:
    """Creates a folder when it is unpickled, like a hostile .pth file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.path),)


def test_a_file_of_weights_never_runs_code(tmp_path):
    created = tmp_path / "created"
    torch.save({"conv1.weight": Trap(created)}, tmp_path / "trap.pth")
    with pytest.raises(UserError, match=r"trap\.pth"):
        read_state(tmp_path / "trap.pth")
    assert not created.exists()


@pytest.mark.parametrize("name", ["broken.pth", "broken.safetensors", "missing.pth"])
def test_a_damaged_or_missing_file_is_refused_with_one_line(name, tmp_path):
    if "broken" in name:
        (tmp_path / name).write_bytes(b"not weights at all")
    with pytest.raises(UserError, match=name) as error:
        read_state(tmp_path / name)
    assert "\n" not in str(error.value)


def test_a_file_with_more_than_tensors_is_refused(tmp_path):
    torch.save({"model": {"conv1.weight": torch.zeros(1)}, "epoch": 3}, tmp_path / "run.pth")
    with pytest.raises(UserError, match="not a state dict"):
        read_state(tmp_path / "run.pth")


def test_downloaded_weights_are_stored_and_distinguished_by_url(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    for depth in ("a", "b"):
        (tmp_path / "web" / depth).mkdir(parents=True)
        saved({"who": torch.tensor(ord(depth))}, tmp_path / "web" / depth / "model.safetensors")
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(tmp_path / "web"))
    handler.log_message = lambda *_: None  # type: ignore[attr-defined]
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        assert read_state(f"{address}/a/model.safetensors")["who"] == ord("a")
        assert read_state(f"{address}/b/model.safetensors")["who"] == ord("b")
        with pytest.raises(UserError, match="404"):
            read_state(f"{address}/c/model.safetensors")
        saved({"who": torch.tensor(0)}, tmp_path / "web" / "resnet-0123abcd.pth")
        with pytest.raises(UserError, match="hash"):
            read_state(f"{address}/resnet-0123abcd.pth")
        server.shutdown()
    assert read_state(f"{address}/a/model.safetensors")["who"] == ord("a")


def test_16_frames_to_128_keeps_every_tensor():
    short = build(ModelConfig("small3d"), classes=3, channels=3)
    long = build(ModelConfig("small3d", frames=128), classes=3, channels=3)
    report = transfer(long, short.state_dict())
    assert set(report.loaded) == set(short.state_dict())
    assert not report.adapted
    assert not report.new
    assert not report.unused
    assert same(long, short.state_dict(), set(short.state_dict()))
    video = torch.randn(1, 3, 128, 32, 32)
    assert long.eval()(video).local.shape[2] == 16
    assert short.eval()(video).local.shape[2] == 32


def test_stage_1_to_2_keeps_all_but_the_heads():
    one = build(ModelConfig("small3d"), classes=3, channels=3)
    two = build(ModelConfig("small3d", stage=2, sketch_dimension=64), classes=3, channels=3)
    initial = copied(two)
    report = transfer(two, one.state_dict())
    backbone = {name for name in one.state_dict() if name.startswith(("stem.", "res"))}
    assert set(report.loaded) == backbone
    assert set(report.new) == {
        *("combination.linear.weight", "combination.linear.bias"),
        *(f"combination.{path}_sketch.{leaf}" for path in ("local", "global") for leaf in ("buckets", "signs")),
    }
    assert set(report.unused) == {f"{path}_head.{leaf}" for path in ("local", "global") for leaf in ("weight", "bias")}
    assert not report.adapted
    assert same(two, one.state_dict(), backbone)
    assert same(two, initial, set(report.new))


def test_rgb_to_flow_keeps_all_but_conv1_which_takes_the_mean():
    rgb = build(ModelConfig("small3d"), classes=3, channels=3)
    flow = build(ModelConfig("small3d"), classes=3, channels=2)
    report = transfer(flow, rgb.state_dict())
    assert set(report.adapted) == {"stem.spatial.conv.weight"}
    assert set(report.loaded) == set(rgb.state_dict()) - {"stem.spatial.conv.weight"}
    assert not report.new
    mean = rgb.state_dict()["stem.spatial.conv.weight"].mean(1)
    for channel in range(2):
        torch.testing.assert_close(flow.state_dict()["stem.spatial.conv.weight"][:, channel], mean)
    assert same(flow, rgb.state_dict(), set(report.loaded))


@pytest.mark.parametrize("stage", [1, 2])
@pytest.mark.parametrize(("classes", "heads"), [(5, True), (3, False)])
def test_heads_stay_new_for_different_classes(stage, classes, heads):
    config = ModelConfig("small3d", stage=stage, sketch_dimension=64, sketch_seed=1)
    old = build(config, classes=3, channels=3)
    new = build(ModelConfig("small3d", stage=stage, sketch_dimension=64, sketch_seed=2), classes=classes, channels=3)
    initial = copied(new)
    report = transfer(new, old.state_dict(), heads=heads)
    names = {name for name in initial if "head." in name or "linear." in name}
    assert set(report.new) == names
    assert set(report.unused) == names
    assert same(new, initial, names)
    assert set(report.loaded) == set(initial) - names  # in stage 2 also the hash functions
    assert same(new, old.state_dict(), set(report.loaded))


def test_same_classes_keep_the_heads():
    old, new = (build(ModelConfig("small3d"), classes=3, channels=3) for _ in range(2))
    assert set(transfer(new, old.state_dict()).loaded) == set(old.state_dict())
    assert same(new, old.state_dict(), set(old.state_dict()))


def test_2d_without_lgd_to_3d_with_lgd_initializes_the_missing_parts_as_for_imagenet():
    flat = build(ModelConfig("small2d", variant="none"), classes=3, channels=3)
    deep = build(ModelConfig("small3d"), classes=3, channels=3)
    report = transfer(deep, flat.state_dict())
    assert set(report.adapted.values()) == {"identity", "zero"}
    assert {n for n, way in report.adapted.items() if way == "identity"} == {
        n for n in copied(deep) if ".temporal." in n
    }
    assert {n for n, way in report.adapted.items() if way == "zero"} == {
        name for name in copied(deep) if name.endswith(".w_xg.outer.weight")
    }
    assert same(deep, flat.state_dict(), set(report.loaded))
    assert "local_head.weight" in report.loaded


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (ModelConfig("deeper"), "2, 1, 3, 1"),
        (ModelConfig("wider"), "a different width"),
        (ModelConfig("small3d", stage=2, sketch_dimension=32), "features"),
    ],
)
def test_a_different_depth_width_or_sketch_is_refused_and_changes_nothing(config, message):
    source = build(ModelConfig("small3d", stage=2, sketch_dimension=64), classes=3, channels=3)
    network = build(config, classes=3, channels=3)
    before = copied(network)
    with pytest.raises(UserError, match=message) as error:
        transfer(network, source.state_dict(), source="old run")
    assert "old run" in str(error.value)
    assert same(network, before, set(before))


def test_weights_of_a_different_network_are_refused():
    with pytest.raises(UserError, match="one of these networks"):
        transfer(build(ModelConfig("small3d"), classes=3, channels=3), torchvision_resnet((2, 1, 2, 1), 4))
