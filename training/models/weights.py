"""Where a network's weights come from: from scratch, a 2D ResNet trained on ImageNet, or another of these networks."""

from __future__ import annotations

import hashlib
import pickle
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.error import URLError
from urllib.parse import urlparse

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from lgd.pipeline.console.errors import UserError
from lgd.training.models.lgd import Block, Network
from lgd.training.models.resnet import ConvBN, ResidualUnit, make_temporal_identity

HEADS = ("local_head.", "global_head.", "combination.linear.")
"""The parts of a network that belong to one list of classes."""


@dataclass(frozen=True)
class LoadReport:
    """What became of the tensors of a network, by name, and of those of the source; prints as two lines at most."""

    source: str
    loaded: tuple[str, ...]
    """Taken as they are."""
    adapted: dict[str, str]
    """Derived from the source or set to suit it, and how."""
    left: tuple[str, ...]
    """Not in the source, or of other classes: as the network was initialized."""
    unused: tuple[str, ...]
    """In the source, without a place in the network (the source's names)."""

    def __str__(self) -> str:
        ways: dict[str, list[str]] = {}
        for name, way in self.adapted.items():
            ways.setdefault(way, []).append(name)
        adapted = "; ".join(f"{way}: {_summary(names)}" for way, names in ways.items())
        first = f"{self.source}: loaded {len(self.loaded)} tensors" + (f"; {adapted}" if adapted else "")
        rest = [f"{what}: {_summary(n)}" for what, n in (("new", self.left), ("not used", self.unused)) if n]
        return "\n".join([first, "; ".join(rest)] if rest else [first])


def initialize(network: Network) -> None:
    """From scratch: Xavier for every convolution and matrix, biases 0, batch normalization 1 and 0."""
    for module in network.modules():
        if isinstance(module, nn.Conv3d | nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.BatchNorm3d):
            module.reset_parameters()
    if network.config.zero_last_bn:
        for module in network.modules():
            if isinstance(module, ResidualUnit):
                nn.init.zeros_(module.expand.bn.weight)


def load_imagenet(network: Network, path_or_url: str | Path) -> LoadReport:
    """Start a fresh network from a 2D ResNet's state dict in torchvision's names (.pth or .safetensors, file or URL).

    Spatial convolutions and their batch normalization are taken over; conv1 takes the mean over RGB where the input
    is flow; temporal convolutions become the identity; the outer factor of every W_xg becomes zero, so that the local
    path starts as the 2D network (under v2 it starts as that network with every unit halved, sigmoid(0)). Nothing is
    changed when it raises UserError: an unreadable file, another depth, not a ResNet of bottlenecks.
    """
    state = read_state(path_or_url)
    source = str(path_or_url)
    there, here = _units(state, r"layer(\d)\.(\d+)\."), _units(network.state_dict(), r"res(\d)\.(\d+)\.")
    if not there:
        raise UserError(f"{source}: not a ResNet in torchvision's names (nothing is called layer1.0.…)")
    if there != here:
        raise UserError(
            f"{source}: a ResNet of {_listed(there)} residual units, but {network.config.name} has {_listed(here)}; "
            "take the ResNet of the same depth"
        )
    values, adapted, used = {}, {}, set()
    for name, tensor in network.state_dict().items():
        theirs = _torchvision_name(name)
        if theirs is None or (theirs not in state and name.endswith("num_batches_tracked")):
            continue
        if theirs not in state:
            raise UserError(f"{source}: no {theirs}; only ResNets of bottlenecks (50, 101) fit {network.config.name}")
        value = state[theirs].unsqueeze(2) if state[theirs].ndim == 4 else state[theirs]
        values[name], way = _fit(source, name, value, tensor=tensor)
        used.add(theirs)
        if way:
            adapted[name] = way
    return _apply(network, source, state, values=values, adapted=adapted, used=used)


def transfer(
    network: Network, state: Mapping[str, Tensor], *, heads: bool = True, source: str = "checkpoint"
) -> LoadReport:
    """Start a fresh network from another of these networks of the same depth and width.

    `state` is the other's state dict. All weights that both have are taken over, so this serves 16 -> 128 frames,
    stage 1 -> 2, RGB -> flow (conv1 takes the mean over the source's channels) and other classes. The heads are left
    new where they have another number of classes, or always with heads=False: another list of classes. Where the
    source has no temporal convolutions or no W_xg, they start as `load_imagenet` starts them. `source` is the name
    for the report and for errors. Nothing is changed when it raises UserError: other depth, width or sketch.
    """
    there, here = (_units(names, r"res(\d)\.(\d+)\.") for names in (state, network.state_dict()))
    if not there:
        raise UserError(f"{source}: not the weights of one of these networks (nothing is called res2.0.…)")
    if there != here:
        raise UserError(
            f"{source}: a network of {_listed(there)} residual units, but {network.config.name} has {_listed(here)}"
        )
    values, adapted, used = {}, {}, set()
    for name, tensor in network.state_dict().items():
        if name not in state:
            continue
        value = state[name]
        if name.startswith(HEADS):
            if value.shape[1:] != tensor.shape[1:]:
                raise UserError(f"{source}: {name} is for {value.shape[1]} features, the network has {tensor.shape[1]}")
            if not heads or value.shape != tensor.shape:
                continue
        values[name], way = _fit(source, name, value, tensor=tensor)
        used.add(name)
        if way:
            adapted[name] = way
    return _apply(network, source, state, values=values, adapted=adapted, used=used)


def read_state(path_or_url: str | Path) -> dict[str, Tensor]:
    """A state dict (name -> tensor, on the CPU) from a .safetensors or .pth file, or from an http(s) URL of one.

    A download is kept in torch.hub's folder, and checked where the file name ends in its hash (as torchvision's do).
    Pickled code is never run. Raises UserError for a file that is missing, broken or something else.
    """
    path = _download(str(path_or_url)) if _is_url(str(path_or_url)) else Path(path_or_url)
    if not path.is_file():
        raise UserError(f"no weights at {path}")
    try:
        if path.suffix == ".safetensors":
            state = safetensors.torch.load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except (safetensors.SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, OSError) as error:
        reason = str(error).strip().split("\n")[0]
        raise UserError(f"{path}: not a file of weights, or one that needs code to be run: {reason}") from error
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise UserError(f"{path}: not a state dict (names and tensors, nothing else)")
    return state


def _apply(
    network: Network,
    source: str,
    state: Mapping[str, Tensor],
    *,
    values: dict[str, Tensor],
    adapted: dict[str, str],
    used: set[str],
) -> LoadReport:
    """Write `values` into the network, start the parts that they do not reach, and report."""
    own = network.state_dict()
    with torch.no_grad():
        for name, value in values.items():
            own[name].copy_(value)
    for prefix, module in network.named_modules():
        if isinstance(module, ConvBN) and prefix.endswith(".temporal") and f"{prefix}.conv.weight" not in values:
            make_temporal_identity(module)
            adapted |= {name: "identity" for name in own if name.startswith(f"{prefix}.")}
        outer = f"{prefix}.w_xg.outer.weight"
        if isinstance(module, Block) and module.w_xg is not None and outer not in values:
            # The outer factor alone: with both at zero neither would ever get a gradient.
            nn.init.zeros_(module.w_xg.outer.weight)
            adapted[outer] = "zero"
    return LoadReport(
        source,
        loaded=tuple(name for name in values if name not in adapted),
        adapted=adapted,
        left=tuple(name for name in own if name not in values and name not in adapted),
        unused=tuple(name for name in state if name not in used),
    )


def _fit(source: str, name: str, value: Tensor, *, tensor: Tensor) -> tuple[Tensor, str]:
    """The value for a tensor of the network, and how it was adapted ("" if it was not)."""
    if value.shape == tensor.shape:
        return value, ""
    shape, wanted = list(value.shape), list(tensor.shape)
    if name == "stem.spatial.conv.weight" and shape[:1] + shape[2:] == wanted[:1] + wanted[2:]:
        return value.mean(1, keepdim=True).expand_as(tensor), f"mean over {shape[1]} input channels"
    raise UserError(f"{source}: {name} has the shape {shape}, the network needs {wanted}: another width or kind")


def _torchvision_name(name: str) -> str | None:
    """torchvision's name of a tensor of the 2D network in ours, None where it has none."""
    if match := re.fullmatch(r"stem\.spatial\.(conv|bn)\.(\w+)", name):
        return f"{match[1]}1.{match[2]}"
    match = re.fullmatch(r"res(\d)\.(\d+)\.unit\.(reduce|spatial|expand|shortcut)\.(conv|bn)\.(\w+)", name)
    if match is None:
        return None
    stage, unit, part, kind, leaf = match.groups()
    if part == "shortcut":
        layer = "downsample.0" if kind == "conv" else "downsample.1"
    else:
        layer = f"{kind}{('reduce', 'spatial', 'expand').index(part) + 1}"
    return f"layer{int(stage) - 1}.{unit}.{layer}.{leaf}"


def _units(names: Iterable[str], pattern: str) -> tuple[int, ...]:
    """Residual units a stage, read from names; () where none match."""
    found = {match.groups() for name in names if (match := re.match(pattern, name))}
    stages = Counter(stage for stage, _ in found)
    return tuple(stages[stage] for stage in sorted(stages))


def _listed(counts: Iterable[int]) -> str:
    return ", ".join(map(str, counts))


def _summary(names: Iterable[str]) -> str:
    """Names in few words: the stages, units and leaves are left out, and the tensors counted."""
    groups = Counter(re.sub(r"^((res|layer)\d)\.\d+", r"\2", name).rsplit(".", 1)[0] for name in names)
    return ", ".join(f"{group} ({count})" for group, count in groups.items())


def _is_url(text: str) -> bool:
    return urlparse(text).scheme in ("http", "https")


def _download(url: str) -> Path:
    name = Path(urlparse(url).path).name
    # Many files on the web are called model.safetensors: the address is part of the name that one is kept under.
    path = Path(torch.hub.get_dir()) / "checkpoints" / f"{hashlib.sha256(url.encode()).hexdigest()[:12]}-{name}"
    if path.is_file():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    match = re.search(r"-([0-9a-f]{8,})\.", name)
    try:
        torch.hub.download_url_to_file(url, str(path), hash_prefix=match[1] if match else None, progress=False)
    except (URLError, RuntimeError, OSError) as error:
        raise UserError(f"{url}: cannot be downloaded: {error}") from error
    return path
