"""`minigpt app`: a saved model in the browser."""

import socket
import sys
from dataclasses import dataclass

from minigpt.hardware import check_device
from minigpt.text import best_device


@dataclass(frozen=True)
class App:
    """Show a model in the browser: prompt, sliders, text that streams."""

    run: str
    """A run folder, an exported folder, a folder in Hugging Face's format,
    or the name of an official model: gpt2, gpt2-medium, gpt2-large,
    gpt2-xl."""
    share: bool = False
    """Also give it a public address for a week, through Gradio's server."""
    host: str = "127.0.0.1"
    """Who may connect: 127.0.0.1 is this machine, 0.0.0.0 everybody."""
    port: int | None = None
    """The port; left out, the first free one from 7860 on."""
    device: str = "auto"
    """auto, cpu, cuda, mps ..."""

    def __post_init__(self):
        if self.port is not None and not 0 < self.port < 2**16:
            raise ValueError(f"port is {self.port}: write 1 to 65535")

    def __call__(self) -> int:
        from minigpt.app import serve

        refuse_address(self.host, self.port)
        auto = self.device == "auto"
        device = check_device(best_device() if auto else self.device)
        page = serve(
            self.run, device=device, share=self.share, host=self.host,
            port=self.port, block=False,
        )
        print(f"{self.run} is at {page.local_url}", flush=True)
        if page.share_url:
            print(f"and for everybody at {page.share_url}", flush=True)
        elif self.share:
            print(
                "minigpt: there is no public address, because Gradio's "
                "server cannot be reached: share again later",
                file=sys.stderr,
            )
        print("Ctrl-C ends it")
        page.block_thread()
        return 0


def refuse_address(host: str, port: int | None) -> None:
    """ValueError if nobody can be served there; else Gradio would search
    for a free port, and find none."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        socket.create_server((host, port or 0), family=family).close()
    except OSError as error:
        place = host if port is None else f"{host}, port {port}"
        raise ValueError(
            f"the app cannot use {place} ({error.strerror}): choose another "
            "--port, or leave --host and --port out"
        ) from None
