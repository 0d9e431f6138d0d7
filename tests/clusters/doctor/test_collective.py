"""Sums over processes: failures, and the interface that carried them. tests/.../test_examine.py runs real ones."""

from pathlib import Path

import pytest

from lgd.clusters.doctor import collective
from lgd.clusters.doctor.rows import WRONG
from lgd.clusters.testbed.processes import free_port

NETWORK = """Inter-|   Receive        |  Transmit
 face |bytes    packets  |bytes    packets
    lo: 1000 2 0 0 0 0 0 0 1000 2 0 0 0 0 0 0
  eth0: 5000 3 0 0 0 0 0 0 7000 4 0 0 0 0 0 0
"""


def test_a_node_that_cannot_reach_the_first_one_is_a_row(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(collective, "CONNECT_S", 0.3)
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "eth7")
    port = free_port()
    (row,) = collective.sum_rows("gloo between nodes", "gloo", rank=1, processes=2, host="127.0.0.1", port=port)
    assert (row.name, row.verdict) == ("gloo between nodes", WRONG)
    assert row.figure.startswith(f"gloo to 127.0.0.1:{port}: ")
    assert row.figure.endswith("(GLOO_SOCKET_IFNAME=eth7)")
    assert "open all ports between the nodes" in row.advice


def test_the_interface_that_sent_most_is_named_with_its_speed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    file = tmp_path / "dev"
    file.write_text(NETWORK)
    counter = tmp_path / "infiniband" / "mlx5_0" / "ports" / "1" / "counters" / "port_xmit_data"
    counter.parent.mkdir(parents=True)
    counter.write_text("250\n")
    (tmp_path / "net" / "eth0").mkdir(parents=True)
    (tmp_path / "net" / "eth0" / "speed").write_text("25000\n")
    monkeypatch.setattr(collective, "NETWORK_CARDS", file)
    monkeypatch.setattr(collective, "INFINIBAND", tmp_path / "infiniband")
    monkeypatch.setattr(collective, "INTERFACES", tmp_path / "net")
    before = collective.interface_bytes()
    assert before == {"lo": 1000, "eth0": 7000, "mlx5_0": 1000}
    sent = collective.SUM_BYTES
    assert collective.busiest(before, before | {"eth0": 7000 + sent}) == "eth0 (25 Gbit/s)"
    assert collective.busiest(before, before | {"eth0": 7000 + sent, "mlx5_0": 1000 + 2 * sent}) == "mlx5_0"
    assert collective.busiest(before, before | {"eth0": 7000 + sent // 10}) == ""  # NVLink or shared memory


@pytest.mark.parametrize("speed", ["-1\n", None])
def test_an_interface_without_a_speed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, speed: str | None):
    monkeypatch.setattr(collective, "INTERFACES", tmp_path)
    if speed:
        (tmp_path / "veth0").mkdir()
        (tmp_path / "veth0" / "speed").write_text(speed)
    assert collective.link_speed("veth0") == ""
