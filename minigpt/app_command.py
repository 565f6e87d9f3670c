"""`minigpt app`: a saved model in the browser."""

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

        auto = self.device == "auto"
        device = check_device(best_device() if auto else self.device)
        page = serve(
            self.run, device=device, share=self.share, host=self.host,
            port=self.port, block=False,
        )
        print(f"{self.run} is at {page.local_url}", flush=True)
        if self.share:
            print(f"and for everybody at {page.share_url}", flush=True)
        print("Ctrl-C ends it")
        page.block_thread()
        return 0
