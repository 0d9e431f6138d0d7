"""What to do about the verdicts that are not ok. One sentence each, in the imperative mood."""

BUSY = "the speeds here are lower than without the other programs: rerun when the node is idle"
CLOCK = (
    "synchronize the clocks with NTP (timedatectl set-ntp true): locks and the signatures of S3 requests depend on them"
)
COMPILER = (
    "apt-get install gcc libc6-dev and the headers of Python (python3-dev), or set CC: torch.compile and the optical "
    "flow on a GPU need them"
)
CPUS_PER_GPU = "give each GPU 4 to 8 CPUs: they read and decode its frames"
CPUS_UNEQUAL = "start all nodes with the same CPUs per GPU (ray start --num-cpus): the smallest number is used for all"
CPUS_TOO_MANY = "start the node with the CPUs that it has (ray start --num-cpus), or its tasks slow each other down"
CRASHED = "see the log of the worker in Ray's folder on this node, and report it with the output of --json"
CUDNN = "install a PyTorch with cuDNN 9.15 or later: earlier ones compute 3D convolutions in bfloat16 wrong or slowly"
CONVOLUTIONS = "reinstall PyTorch with the cuDNN of its wheel, and run lgd doctor again; do not train on this node"
DALI = "pip install nvidia-dali-cuda130: it decodes the frames"
DATA_DIFFERENT = "mount the same storage at the same path on every node: this node sees another dataset there"
DATA_MISSING = "mount the storage at the same path on every node, or use an address such as s3://bucket/folder"
DATA_SLOW = "copy the dataset to a faster disk, or use the shard cache (--cache-dir) for remote storage"
DECODERS = "install nvidia-nvjpeg 13.2 or later: scores then do not depend on the device that decodes"
FILES = "raise the limit before ray start: ulimit -n 65536 (LimitNOFILE= in systemd, --ulimit nofile=65536 in Docker)"
FRAMES = "check that no other program uses the node, and give it more CPUs"
GPU_CAPABILITY = "use a GPU of compute capability 7.5 or later: PyTorch with CUDA 13 does not support older ones"
GPU_COUNT = "install a PyTorch with CUDA and a driver for it, or start the node with --num-gpus=0"
GPU_HIDDEN = "start the node without --num-gpus, or with the number of its GPUs"
GPU_SLOW = "check nvidia-smi -q -d PERFORMANCE (temperature, power limit) and that no other program uses the GPU"
HOST_NAME = (
    "write the node's address for its name into /etc/hosts, or set GLOO_SOCKET_IFNAME on every node to the interface "
    "of the cluster's network"
)
LGD = "install lgd {version} on this node, or run commands with lgd submit, which sends its own"
LOST = "see ray status; tasks are repeated elsewhere"
MIG = "switch MIG off (nvidia-smi -mig 0), or use one worker per node: CUDA sees one MIG device per process"
MOUNT_SHM = "give it 30 % of the memory (docker run --shm-size=32g; an emptyDir with medium: Memory in Kubernetes)"
NETWORK = (
    "open all ports between the nodes, and set GLOO_SOCKET_IFNAME and NCCL_SOCKET_IFNAME on every node to the "
    "interface of the cluster's network"
)
NETWORK_SLOW = "check the interface: NCCL_SOCKET_IFNAME and GLOO_SOCKET_IFNAME choose it; NCCL_IB_DISABLE must not be 1"
NO_ANSWER = "see ray status and the logs of Ray on this node; restart ray start there"
NVJPEG = "pip install 'nvidia-nvjpeg>=13.2': older ones decode crop windows without interpolating the colors"
PACKAGE = "install the same version on every node; constraints.txt has the versions that were tested together"
PYTHON = "use the same Python on every node: Ray cannot exchange objects between different ones"
RAY = "install ray {version} on this node and restart it: all nodes of a cluster need the same version"
SLOWER = "compare with the other nodes: its load, temperature, power limit, and what else runs there"
TEMPORARY = "free some space there, or set TMPDIR to a larger folder before ray start"
TIME_LIMIT = "rerun when the node is idle; if it happens again, see the logs of Ray on this node"
TORCH = "pip install torch: networks need it"


def driver_advice(minimum: str) -> str:
    """Return what to do about a missing or too old NVIDIA driver."""
    return f"install NVIDIA driver {minimum} or later, or start the node with --num-gpus=0"
