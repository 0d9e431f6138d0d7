"""One training step of one worker, and the network and the optimizer that it trains.

Each clip has the weight 1 / (global batch size), so that the sum of the workers' gradients is the gradient of the
global batch, even if the workers' shares of it have different sizes. Imports neither Ray nor DALI, so that
`lgd.benchmarks.gpu` also runs on machines without them."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from lgd.training.models.dropout import set_dropout
from lgd.training.models.frozen import freeze, set_frozen_modes
from lgd.training.models.lgd import Network
from lgd.training.models.normalization import ClipGroups, set_groups, update_running_statistics
from lgd.training.models.zoo import build
from lgd.training.recipes import TrainConfig
from lgd.training.steps.cuda_graph import GraphedBackward, add_gradients
from lgd.training.steps.optimizer import create_optimizer, set_learning_rate
from lgd.training.steps.precision import autocast
from lgd.training.steps.step_groups import StepGroups

if TYPE_CHECKING:
    from lgd.pipeline.loading.loader import Batch


class SharePart(NamedTuple):
    """Clips of a worker's share that are computed at the same time."""

    clips: slice | Tensor
    """Which clips of the share; their numbers are on the device."""
    positions: list[int]
    """Of these clips, in the clip order."""
    groups: ClipGroups | None
    """Their normalization groups."""


def create_network(config: TrainConfig, classes: int, device: torch.device) -> tuple[Network, torch.optim.Optimizer]:
    """Return the network of a configuration with new weights, and its optimizer."""
    network = build(config.model, classes, channels=3 if config.stream == "rgb" else 2)
    network.to(device=device, memory_format=torch.channels_last_3d)  # type: ignore[call-overload]  # missing in torch
    freeze(network, config.freeze_until)
    return network, create_optimizer(network, config.optimizer)


def train_step(
    model: Any,
    network: Network,
    optimizer: torch.optim.Optimizer,
    *,
    batch: Batch,
    config: TrainConfig,
    groups: StepGroups,
    lr: float,
    workers: int,
    graphs: GraphedBackward | None = None,
) -> tuple[dict[str, Tensor], Tensor, Tensor]:
    """Train one step on this worker's share of a global batch.

    model: what is called: the network or its DistributedDataParallel. groups: parts of the share and their
    normalization groups. lr: learning rate. graphs: records the passes as CUDA graphs; model is then the network.
    Returns the losses by path, the fraction of correct clips: this worker's part of the mean over the global batch; and
    the norm of the gradient of the global batch, before it is limited, the same on every worker.
    """
    network.train()
    if config.freeze_normalization:
        freeze_normalization(network)
    set_frozen_modes(network, config.freeze_until)
    set_learning_rate(optimizer, lr, config.optimizer)
    optimizer.zero_grad(set_to_none=True)
    if graphs is None:
        parts = share_parts(groups, batch)
        losses, correct = _backward(model, network, video=batch.video, label=batch.label, parts=parts, config=config)
    else:
        losses, correct = graphs(
            batch,
            lambda: share_parts(groups, batch),
            lambda video, label, parts: _backward(
                network, network, video=video, label=label, parts=parts, config=config
            ),
        )
        if workers > 1:
            add_gradients(network)
    if config.statistics_group:
        update_running_statistics(network)
    # The workers have the same gradients: DistributedDataParallel has added those of their shares.
    gradients = [parameter.grad for parameter in network.parameters() if parameter.grad is not None]
    grad_norm = torch.nn.utils.get_total_norm(gradients)
    if config.optimizer.max_grad_norm is not None:
        torch.nn.utils.clip_grads_with_norm_(network.parameters(), config.optimizer.max_grad_norm, grad_norm)
    optimizer.step()
    return losses, correct, grad_norm.detach()


def share_parts(groups: StepGroups, batch: Batch) -> list[SharePart]:
    """Return the parts of a share that are computed one after the other."""
    parts = []
    for part, clip_groups in groups.parts(batch.position):
        if isinstance(part, slice):
            parts.append(SharePart(part, batch.position[part], clip_groups))
        else:  # as a list it would be copied to a GPU by a copy for which the CPU waits
            clips = torch.tensor(part, dtype=torch.int64).to(batch.video.device, non_blocking=True)
            parts.append(SharePart(clips, [batch.position[clip] for clip in part], clip_groups))
    return parts


def _backward(
    model: Any, network: Network, *, video: Tensor, label: Tensor, parts: Sequence[SharePart], config: TrainConfig
) -> tuple[dict[str, Tensor], Tensor]:
    """Compute the gradients of this worker's share, one part at a time; DistributedDataParallel sums them over the
    workers.

    Returns the losses and the fraction of correct clips, as `train_step`."""
    device = video.device
    distributed = isinstance(model, DistributedDataParallel)
    weight = torch.full((len(label),), 1 / config.batch_size, device=device)
    losses: dict[str, Tensor] = {}
    correct = weight.new_zeros(())
    for number, part in enumerate(parts, 1):
        set_groups(network, part.groups)
        if config.model.dropout:
            set_dropout(network, config.seed, part.positions, device=device)
        part_label, part_weight = label[part.clips], weight[part.clips]
        with model.no_sync() if distributed and number < len(parts) else contextlib.nullcontext():
            with autocast(config.precision, device):
                output = model(video[part.clips])
            part_losses = network.loss(output, part_label, part_weight)
            # DistributedDataParallel takes the mean over the workers; the sum is needed.
            torch.autograd.backward(part_losses.total * (dist.get_world_size() if distributed else 1))
        for path, loss in part_losses.paths.items():
            losses[path] = losses.get(path, 0) + loss.detach()
        is_correct = network.probabilities(output).argmax(1) == part_label
        correct += (is_correct * part_weight).sum().detach()
    return losses, correct


def freeze_normalization(network: torch.nn.Module) -> None:
    """Let batch normalization use its running statistics without updating them."""
    for module in network.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.eval()
