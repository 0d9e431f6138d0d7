"""TV-L1 optical flow: its parameters, and solvers with numba (CPU), PyTorch (GPU) and OpenCV (reference).

May import lgd.pipeline and nothing else of this project.
"""
