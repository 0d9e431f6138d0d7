"""Options that several commands have."""

from typing import Annotated

from tyro.conf import arg

Address = Annotated[
    str | None,
    arg(
        metavar="HOST:PORT",
        help="Ray cluster to join, or auto; this machine must be one of its nodes. Default: RAY_ADDRESS, or a new "
        "cluster on this machine alone.",
    ),
]
Data = Annotated[str, arg(metavar="DIR", help="Folder of the dataset, local or s3://...")]
Split = Annotated[str, arg(metavar="NAME", help="Split to score.")]
Epochs = Annotated[float | None, arg(metavar="N", help="Epochs of each training. Default: those of the recipes.")]
PerClass = Annotated[
    str | None, arg(metavar="FILE.parquet", help="File for the accuracy of each class and the confusion matrix.")
]
