"""What a device is and how hard it works: peak speed, memory, use.

Everything here answers None, or "unknown", rather than guess.
"""

import sys

import torch

# Dense 16-bit matrix products summed in fp32, 10^12 operations a second, from
# NVIDIA's data sheets. These print numbers "with sparsity", which no training
# reaches: half of them stands here. A10G, which has no sheet, is left out, and
# so are laptop cards: their peak depends on the power that the maker allows.
PEAK_TFLOPS = {
    "H200 NVL": 835.5,
    "H200": 989.5,
    "H100 PCIe": 756.5,
    "H100 NVL": 835.5,
    "H100": 989.5,
    "A100": 312.0,
    "L40S": 362.05,
    "L4": 121.0,
    "T4": 65.0,
    "V100 PCIE": 112.0,
    "V100": 125.0,
    "RTX 4090": 165.2,  # Ada whitepaper, appendix A
    "RTX 3090": 71.0,  # GA102 whitepaper, table 2
}
# Words that make of a card of the table another one, or a part of it.
OTHERS = {"Laptop", "MIG", "Ti", "D"}


def check_device(name: str) -> str:
    """The name, if tensors can be made there; else ValueError says why."""
    try:
        torch.empty(1, device=name).item()  # device "meta" holds no numbers
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise ValueError(
            f"device {name!r} cannot be used here ({reason}): "
            "write auto, or cpu"
        ) from None
    return name


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether that is what PyTorch means; each device has its own words."""
    signs = ("out of memory", "allocate memory", "not enough memory")
    signs += ("ALLOC_FAILED",)  # cuBLAS and cuDNN, when they begin to work
    return any(sign in str(error) for sign in signs)


def synchronize(device: str) -> None:
    """Wait until the device has done all that it was asked to do."""
    kind = torch.device(device).type
    if kind == "cuda":
        torch.cuda.synchronize(device)
    elif kind == "mps":
        torch.mps.synchronize()


def peak_flops(device: str, precision: str) -> float | None:
    """The most operations a second the device can do; None if unknown."""
    if torch.device(device).type != "cuda" or precision == "fp32":
        return None
    return known_peak(torch.cuda.get_device_name(device))


def known_peak(card: str) -> float | None:
    """The 16-bit peak of a card by the words of its name; None if unknown."""
    words = card.replace("-", " ").split()
    if OTHERS & {*words}:
        return None
    for name, tera in PEAK_TFLOPS.items():
        if all(word in words for word in name.split()):
            return tera * 1e12
    return None


def flops_per_token(config, num_params: int) -> int:
    """Operations to train on one token: forward, and twice that backward.

    6 a parameter that multiplies (position embeddings only add), and
    12 L C T for attention (Chowdhery et al. 2022, appendix B).
    """
    c = config
    matrices = num_params - c.context_length * c.emb_dim
    if not c.tie_weights:  # then the input table is only looked up
        matrices -= c.vocab_size * c.emb_dim
    attention = 12 * c.n_layers * c.emb_dim * c.context_length
    return 6 * matrices + attention


def usage(device: str) -> dict[str, float | None]:
    """Memory in MB (the most so far) and the GPU's use in percent."""
    cuda = torch.device(device).type == "cuda"
    peak = torch.cuda.max_memory_allocated(device) if cuda else None
    return {
        "host_mb": _host_mb(),
        "device_mb": round(peak / 2**20, 1) if cuda else None,
        "gpu_percent": _gpu_percent(device) if cuda else None,
    }


def _host_mb() -> float | None:
    """The most memory this process has held; None on Windows."""
    if sys.platform == "win32":
        return None
    import resource

    size = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # kilobytes on Linux, bytes on a Mac
    return round(size / (2**20 if sys.platform == "darwin" else 2**10), 1)


def _gpu_percent(device: str) -> int | None:
    try:  # needs NVIDIA's management library, which few have installed
        return torch.cuda.utilization(device)
    except Exception:  # it has errors of its own: a MIG slice, WSL, Docker
        return None
