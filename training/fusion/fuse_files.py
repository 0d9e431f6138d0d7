"""Score files -> a fusion: by equal weights, by given ones, or by ones fitted on other files."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lgd.pipeline.console.errors import UsageError
from lgd.training.fusion.fit import check_fitting, fitted_rule, record
from lgd.training.fusion.fuse import Space, fuse, given_rule, metrics
from lgd.training.fusion.join import Joined, join
from lgd.training.scoring.scores import Scores, read_scores


@dataclass(frozen=True)
class Fusion:
    """equal: the fusion of equal weights in the same space, where `fused` is another one. fit: metrics on the fitting
    videos, by equal weights and by the fitted rule; None where nothing was fitted."""

    joined: Joined
    fused: Scores
    equal: Scores | None
    fit: dict[str, Any] | None


def fuse_files(
    files: Sequence[str],
    weights: tuple[float, ...] | None = None,
    temperatures: tuple[float, ...] | None = None,
    *,
    fit: Sequence[str] | None = None,
    space: Space = "probabilities",
    intersect: bool = False,
) -> Fusion:
    """Reads, checks, joins and fuses. fit: score files of the same models in the same order, of other videos.

    Raises UsageError and UserError for what does not fit together, as `join`, `Rule` and `check_fitting` do."""
    if len(files) < 2:
        raise UsageError("fusing takes two or more score files")
    if fit is not None and not (weights is None and temperatures is None):
        raise UsageError("--fit finds the weights and temperatures: give them, or --fit, not both")
    equal_rule = given_rule(len(files), space=space)
    rule = given_rule(len(files), weights, temperatures, space=space)
    if fit is not None and len(fit) != len(files):
        raise UsageError(
            f"--fit takes a score file for each of the {len(files)} reported, in their order, not {len(fit)}"
        )
    joined = join([read_scores(file) for file in files], intersect)
    fitted_on = numbers = None
    if fit is not None:
        fitting = join([read_scores(file) for file in fit], intersect)
        check_fitting(joined, fitting)
        rule = fitted_rule(fitting, space)
        fitted_on = record(fitting)
        numbers = {name: metrics(fuse(fitting, each)) for name, each in (("equal", equal_rule), ("fitted", rule))}
    equal = None if rule.is_equal else fuse(joined, equal_rule)
    return Fusion(joined, fuse(joined, rule, fitted_on), equal, numbers)
