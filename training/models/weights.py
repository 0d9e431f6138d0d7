"""Initial weights of a network: from scratch, from a 2D ResNet trained on ImageNet, or from another network of ours."""

from __future__ import annotations

import hashlib
import re
import zipfile
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.error import URLError
from urllib.parse import urlparse

import safetensors.torch
import torch
from torch import Tensor, nn

from lgd.pipeline.console.errors import UserError
from lgd.pipeline.storage.paths import check_file
from lgd.pipeline.storage.storage import Storage
from lgd.training.models.lgd import Block, Network
from lgd.training.models.resnet import ConvBN, ResidualUnit, make_temporal_identity
from lgd.training.torch_file import check_tensors, load_torch_file

HEADS = ("local_head.", "global_head.", "combination.linear.")
"""The parts of a network that depend on the classes."""


@dataclass(frozen=True)
class LoadReport:
    """What was loaded: the tensors of a network and of the source, by name. As text it has at most two lines."""

    source: str
    loaded: tuple[str, ...]
    """Loaded without changes."""
    adapted: dict[str, str]
    """Derived from the source or set to fit it, and how."""
    new: tuple[str, ...]
    """Missing in the source, or for different classes: as the network was initialized."""
    unused: tuple[str, ...]
    """Tensors of the source that the network does not have (names of the source)."""

    def __str__(self) -> str:
        ways: dict[str, list[str]] = {}
        for name, way in self.adapted.items():
            ways.setdefault(way, []).append(name)
        adapted = "; ".join(f"{way}: {_summary(names)}" for way, names in ways.items())
        first = f"{self.source}: loaded {len(self.loaded)} tensors" + (f"; {adapted}" if adapted else "")
        rest = [f"{what}: {_summary(n)}" for what, n in (("new", self.new), ("not used", self.unused)) if n]
        return "\n".join([first, "; ".join(rest)] if rest else [first])


def initialize(network: Network) -> None:
    """Initialize a network from scratch: convolutions and matrices as Xavier, biases 0, batch normalization 1 and 0."""
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
    """Load a 2D ResNet's state dict with torchvision's names (.pth or .safetensors, file or URL) into a new network.

    Spatial convolutions and their batch normalization are loaded; for flow, conv1 is the mean over RGB. Temporal
    convolutions become the identity, and the outer factor of every W_xg zero, so that the local path starts as the 2D
    network (with v2 as the 2D network with every unit halved, sigmoid(0)). Raises UserError, without changing the
    network, for an unreadable file, a different depth, and a network that is not a ResNet of bottlenecks."""
    state = read_state(path_or_url)
    source = str(path_or_url)
    theirs, ours = _units(state, r"layer(\d)\.(\d+)\."), _units(network.state_dict(), r"res(\d)\.(\d+)\.")
    if not theirs:
        raise UserError(f"{source}: not a ResNet with torchvision's names (no tensor is named layer1.0.…)")
    if theirs != ours:
        raise UserError(
            f"{source}: a ResNet with {_listed(theirs)} residual units, but {network.config.name} has {_listed(ours)}; "
            "use the ResNet of the same depth"
        )
    values, adapted, used = {}, {}, set()
    for name, tensor in network.state_dict().items():
        their_name = _torchvision_name(name)
        if their_name is None or (their_name not in state and name.endswith("num_batches_tracked")):
            continue
        if their_name not in state:
            raise UserError(
                f"{source}: {their_name} is missing; only ResNets of bottlenecks (50, 101) fit {network.config.name}"
            )
        value = state[their_name].unsqueeze(2) if state[their_name].ndim == 4 else state[their_name]
        values[name], way = _fit(source, name, value, tensor=tensor)
        used.add(their_name)
        if way:
            adapted[name] = way
    return _apply(network, source, state, values=values, adapted=adapted, used=used)


def transfer(
    network: Network, state: Mapping[str, Tensor], *, heads: bool = True, source: str = "checkpoint"
) -> LoadReport:
    """Load the weights of another network of ours, of the same depth and width, into a new network.

    state: state dict of the other network. All weights that both have are loaded: 16 -> 128 frames, stage 1 -> 2,
    RGB -> flow (conv1 is the mean over the source's channels) and different classes are possible. The heads stay new if
    the number of classes differs, and always with heads=False, for different classes. If the source has no temporal
    convolutions or no W_xg, these start as in `load_imagenet`. source: name for the report and for errors. Raises
    UserError, without changing the network, for a different depth, width or sketch."""
    theirs, ours = (_units(names, r"res(\d)\.(\d+)\.") for names in (state, network.state_dict()))
    if not theirs:
        raise UserError(f"{source}: not the weights of one of these networks (no tensor is named res2.0.…)")
    if theirs != ours:
        raise UserError(
            f"{source}: a network with {_listed(theirs)} residual units, but {network.config.name} has {_listed(ours)}"
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
    """Return the state dict (name -> tensor, on the CPU) of a .safetensors or .pth file, or of an http(s) URL of one.

    A download is stored in torch.hub's folder, and verified if the file name ends in its hash (as torchvision's do).
    Code in a pickle is never run. Raises UserError for a file that is missing, damaged or not a state dict."""
    path = _download(str(path_or_url)) if _is_url(str(path_or_url)) else Path(path_or_url)
    if not path.exists():
        raise UserError(f"no weights at {path}")
    check_file(str(path), str(path))
    try:
        if path.suffix == ".safetensors":
            state = safetensors.torch.load_file(path)
        elif zipfile.is_zipfile(path):
            with Storage(path.parent).open(path.name) as file:
                state = load_torch_file(file, str(path))
        else:  # written by an early version of PyTorch
            state = torch.load(path, map_location="cpu", weights_only=True)
    except UserError as error:
        raise UserError(f"{error}: not a file of weights, or one that could run code; download it again") from error
    except Exception as error:  # the unpickler of torch.load raises anything for a damaged file
        reason = " ".join(str(error).split())[:120]
        raise UserError(f"{path}: not a file of weights, or one that could run code: {reason}") from error
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise UserError(f"{path}: not a state dict (only names and tensors)")
    if not all(isinstance(name, str) for name in state):
        raise UserError(f"{path}: not a state dict (only names and tensors)")
    check_tensors(state, path.stat().st_size, str(path))
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
    """Load `values` into the network, initialize temporal convolutions and W_xg without values, and report."""
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
            # Only the outer factor: with both factors zero, neither would get a gradient.
            nn.init.zeros_(module.w_xg.outer.weight)
            adapted[outer] = "zero"
    return LoadReport(
        source,
        loaded=tuple(name for name in values if name not in adapted),
        adapted=adapted,
        new=tuple(name for name in own if name not in values and name not in adapted),
        unused=tuple(name for name in state if name not in used),
    )


def _fit(source: str, name: str, value: Tensor, *, tensor: Tensor) -> tuple[Tensor, str]:
    """Return the value for a tensor of the network, and how it was adapted ("" if it was not)."""
    if value.is_floating_point() != tensor.is_floating_point():
        raise UserError(f"{source}: {name} contains {value.dtype} numbers, but the network needs {tensor.dtype}")
    if value.shape == tensor.shape:
        return value, ""
    shape, needed = list(value.shape), list(tensor.shape)
    if name == "stem.spatial.conv.weight" and shape[:1] + shape[2:] == needed[:1] + needed[2:]:
        return value.mean(1, keepdim=True).expand_as(tensor), f"mean over {shape[1]} input channels"
    raise UserError(
        f"{source}: {name} has the shape {shape}, but the network needs {needed}: a different width or kind"
    )


def _torchvision_name(name: str) -> str | None:
    """Return torchvision's name for a tensor of our network; None for a tensor that a 2D ResNet does not have."""
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
    """Return the number of residual units per stage, found in names of tensors; () if no name matches."""
    units = {match.groups() for name in names if (match := re.match(pattern, name))}
    stages = Counter(stage for stage, _ in units)
    return tuple(stages[stage] for stage in sorted(stages))


def _listed(counts: Iterable[int]) -> str:
    return ", ".join(map(str, counts))


def _summary(names: Iterable[str]) -> str:
    """Return a short text for names: groups of tensors, without stage, unit and leaf, with their number."""
    groups = Counter(re.sub(r"^((res|layer)\d)\.\d+", r"\2", name).rsplit(".", 1)[0] for name in names)
    return ", ".join(f"{group} ({count})" for group, count in groups.items())


def _is_url(text: str) -> bool:
    return urlparse(text).scheme in ("http", "https")


def _download(url: str) -> Path:
    name = Path(urlparse(url).path).name
    # Many files on the web are named model.safetensors: the name of the stored file contains a hash of the URL.
    path = Path(torch.hub.get_dir()) / "checkpoints" / f"{hashlib.sha256(url.encode()).hexdigest()[:12]}-{name}"
    if path.is_file():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    match = re.search(r"-([0-9a-f]{8,})\.", name)
    try:
        torch.hub.download_url_to_file(url, str(path), hash_prefix=match[1] if match else None, progress=False)
    except (URLError, RuntimeError, OSError) as error:
        raise UserError(f"cannot download {url}: {error}") from error
    return path
