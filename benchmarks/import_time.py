"""What `import minigpt` costs on top of `import torch`.

    python benchmarks/import_time.py [processes]

Each measurement is a fresh process; the row holds medians. The target is
at most 50 ms.
"""

import statistics
import subprocess
import sys

TARGET_MS = 50
MEASURE = """
import time
start = time.perf_counter()
import torch
middle = time.perf_counter()
import minigpt
print(middle - start, time.perf_counter() - middle)
"""


def measure() -> tuple[float, float]:
    """(import torch, then import minigpt) of one process, in ms."""
    done = subprocess.run(
        [sys.executable, "-c", MEASURE],
        capture_output=True,
        text=True,
        check=True,
    )
    torch_s, minigpt_s = map(float, done.stdout.split())
    return torch_s * 1000, minigpt_s * 1000


def main() -> None:
    processes = int(sys.argv[1]) if len(sys.argv) > 1 else 11
    measure()  # once for the disk cache and the .pyc files
    torch_ms, minigpt_ms = zip(
        *(measure() for _ in range(processes)), strict=True
    )
    print("| what | median | fastest | slowest | target |")
    print("| --- | ---: | ---: | ---: | ---: |")
    for name, times, target in (
        ("`import torch`", torch_ms, ""),
        ("then `import minigpt`", minigpt_ms, f"≤ {TARGET_MS} ms"),
    ):
        middle = statistics.median(times)
        print(
            f"| {name} | {middle:.0f} ms | {min(times):.0f} ms "
            f"| {max(times):.0f} ms | {target} |"
        )


if __name__ == "__main__":
    main()
