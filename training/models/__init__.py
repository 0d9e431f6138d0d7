"""The networks of the paper: ResNet and P3D units, blocks with local and global diffusion, the combination classifier,
and their initial weights. May import lgd.pipeline."""
