"""Fuse score files: by equal weights, by given weights, or by weights fitted on other score files."""

from collections.abc import Sequence
from dataclasses import dataclass

from lgd.pipeline.console.errors import UsageError
from lgd.training.fusion.fit import check_fitting, fit_rule, fitted_on
from lgd.training.fusion.fuse import FittedOn, fuse, make_rule
from lgd.training.fusion.join import JoinedScores, join
from lgd.training.fusion.options import FusionOptions
from lgd.training.scoring.metrics import Metrics, scores_summary
from lgd.training.scoring.scores import Scores, read_scores


@dataclass(frozen=True)
class Fusion:
    """Inputs and result of a fusion.

    equal: the fusion with equal weights in the same space; None if `fused` is that. fit: metrics on the fitting videos,
    with equal weights ("equal") and with the fitted rule ("fitted"); None if nothing was fitted."""

    joined: JoinedScores
    fused: Scores
    equal: Scores | None
    fit: dict[str, Metrics] | None


def fuse_files(files: Sequence[str], options: FusionOptions = FusionOptions()) -> Fusion:
    """Read, check, join and fuse score files.

    Raises UsageError and UserError for files and options that do not match, as `join`, `FusionRule` and `check_fitting`
    do."""
    fit, space = options.fit, options.space
    if len(files) < 2:
        raise UsageError("fusion needs two or more score files")
    if fit is not None and not (options.weights is None and options.temperatures is None):
        raise UsageError("--fit finds the weights and temperatures: give either them or --fit, not both")
    equal_rule = make_rule(len(files), space=space)
    rule = make_rule(len(files), options.weights, options.temperatures, space=space)
    if fit is not None and len(fit) != len(files):
        raise UsageError(
            f"--fit takes one score file for each of the {len(files)} reported, in the same order, not {len(fit)}"
        )
    joined = join([read_scores(file) for file in files], options.intersect)
    fitting_files: list[FittedOn] | None = None
    fit_metrics: dict[str, Metrics] | None = None
    if fit is not None:
        fitting = join([read_scores(file) for file in fit], options.intersect)
        check_fitting(joined, fitting)
        rule = fit_rule(fitting, space)
        fitting_files = fitted_on(fitting)
        rules = {"equal": equal_rule, "fitted": rule}
        fit_metrics = {name: scores_summary(fuse(fitting, each)) for name, each in rules.items()}
    equal = None if rule.is_equal else fuse(joined, equal_rule)
    return Fusion(joined, fuse(joined, rule, fitting_files), equal, fit_metrics)
