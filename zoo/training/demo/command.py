"""The command `demo`: a finished run as a page in the browser, served to this machine alone."""

from __future__ import annotations

import importlib.util
import os
import signal
import tempfile
import time
from pathlib import Path
from typing import Annotated, Any

from omegaconf import DictConfig, OmegaConf

from zoo.checks import Range, check_type
from zoo.errors import ZooError
from zoo.models.base import ZooModel
from zoo.training.checkpoint import find_checkpoint, load_model
from zoo.training.demo.pages import make_page, page_of
from zoo.training.demo.subject import Subject
from zoo.training.plugins import import_plugins
from zoo.training.pretrained import load_pretrained
from zoo.training.run import device_of
from zoo.training.run_config import read_config
from zoo.training.shipped import index

__all__ = ["HOST", "demo_run", "serve", "trained"]

HOST = "127.0.0.1"


def demo_run(config: DictConfig) -> None:
    """Load the run's model, serve its page, and wait until the user ends it."""
    options: dict[str, Any] = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)  # type: ignore[assignment]
    port = check_type("port", options["port"], Annotated[int, Range(1, 65535)])
    browser = check_type("browser", options["browser"], bool)
    import_plugins(options["plugins"])
    model, settings = trained(options["run"], options["checkpoint"])
    page_of(model)  # before anything slow: that there is one
    check_gradio()
    model.to(device_of(options["accelerator"]))
    with tempfile.TemporaryDirectory(prefix="zoo-demo-") as folder:
        subject = Subject(model, Path(options["run"]), Path(folder), settings)
        page, address = serve(subject, port, browser)
        try:
            print(f"{subject.title}: {address} (Ctrl-C ends it)", flush=True)
            wait()
        finally:
            page.close(verbose=False)


def trained(name: str, which: str | None = None) -> tuple[ZooModel, dict[str, Any]]:
    """Return the model of a run, of a checkpoint alone or of weights of the package, with the settings of its training.

    >>> model, settings = trained("kmeans/digits")
    >>> model.entry.name, settings["data"]["name"]
    ('kmeans', 'digits')
    """
    if name in index() and not Path(name).exists():
        return load_pretrained(name), {"data": index()[name]["data"]}
    config = Path(name) / "config.yaml"
    return load_model(find_checkpoint(name, which)), read_config(config) if config.is_file() else {}


def wait() -> None:
    """Wait for Ctrl-C or SIGTERM, which end the process with their exit code."""

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def end(signum: int, frame: Any) -> None:
        restore()  # a second signal ends what the first one has not
        raise SystemExit(128 + signum)

    before = {number: signal.signal(number, end) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        while True:  # an exception out of the lock of an Event may leave it in disorder
            time.sleep(1)
    finally:
        restore()


def check_gradio() -> None:
    """Raise one line where Gradio is not installed."""
    if importlib.util.find_spec("gradio") is None:
        raise ZooError("The demo is a page of Gradio, which is not installed: pip install 'refzoo[demo]'.")


def serve(subject: Subject, port: int, browser: bool = False) -> tuple[Any, str]:
    """Serve a run's page to this machine, and to it alone; return the page, which is to be closed, and its address.

    Nothing in the page is loaded from elsewhere, and nothing of it is told elsewhere.

    Raises:
        ZooError: if another program listens at the port.
    """
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["GRADIO_TEMP_DIR"] = str(subject.folder)
    import gradio as gr

    fonts = {"font": ["system-ui", "sans-serif"], "font_mono": ["ui-monospace", "monospace"]}  # none of the network
    page = make_page(subject)
    try:
        _, address, _ = page.launch(
            server_name=HOST, server_port=port, inbrowser=browser, share=False, quiet=True, prevent_thread_lock=True,
            footer_links=[], ssr_mode=False, enable_monitoring=False, theme=gr.themes.Default(**fonts),
            _frontend=False,  # does not ask for the page first, which busy machines and proxies answer too late
        )  # fmt: skip
    except OSError as error:
        if "port" not in str(error):
            raise
        raise ZooError(f"port={port} is taken: pass another, such as port={port % 65535 + 1}.") from None
    return page, address
