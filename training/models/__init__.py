"""The networks of the paper: ResNet and P3D, local and global diffusion, the combination classifier."""
