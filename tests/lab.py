"""A real JupyterLab for the tests of widgets: a server of its own, and notebooks in a headless Chromium."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import nbformat

CHROMIUM = (
    shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
)
REPOSITORY = Path(__file__).parents[1]


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


CONTROLS = ("button", "link", "textbox", "searchbox", "combobox", "checkbox", "slider", "region",
            "search", "columnheader")  # fmt: skip


def accessible_names(page) -> dict[str, list[str]]:
    """List the names that a screen reader is told, by role."""
    session = page.context.new_cdp_session(page)
    names = {}
    for node in session.send("Accessibility.getFullAXTree")["nodes"]:
        if not node.get("ignored"):
            role = node.get("role", {}).get("value")
            names.setdefault(role, []).append(node.get("name", {}).get("value", ""))
    return names


class Lab:
    """A JupyterLab of its own, and pages in it; `browser` is set by whoever opens pages."""

    def __init__(self, folder, browser=None):
        self.folder = folder
        self.browser = browser
        self.port = free_port()
        config = folder / "config" / "labconfig"
        config.mkdir(parents=True)
        news = {"disabledExtensions": {"@jupyterlab/apputils-extension:announcements": True}}
        (config / "page_config.json").write_text(json.dumps(news))
        places = {
            "JUPYTER_CONFIG_DIR": "config",
            "IPYTHONDIR": "ipython",
            "JUPYTER_RUNTIME_DIR": "runtime",
        }
        places |= {"JUPYTERLAB_SETTINGS_DIR": "settings", "JUPYTERLAB_WORKSPACES_DIR": "workspaces"}
        places = {name: str(folder / place) for name, place in places.items()}
        command = [
            sys.executable,
            "-m",
            "jupyterlab",
            "--no-browser",
            "--allow-root",
            f"--ServerApp.root_dir={folder}",
        ]
        command += [
            f"--ServerApp.port={self.port}",
            "--IdentityProvider.token=",
            "--LabApp.expose_app_in_browser=True",
        ]
        path = os.pathsep.join([str(REPOSITORY), os.environ.get("PYTHONPATH", "")])
        environment = os.environ | places | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
        with open(folder / "lab.log", "wb") as log:
            self.process = subprocess.Popen(
                command, env=environment, cwd=folder, stdout=log, stderr=log
            )
        self._wait()

    def _wait(self):
        for _ in range(240):
            try:
                return urllib.request.urlopen(f"http://127.0.0.1:{self.port}/api", timeout=2).read()
            except OSError:
                assert self.process.poll() is None, (self.folder / "lab.log").read_text()
                time.sleep(0.25)
        raise AssertionError("JupyterLab did not start in a minute")

    def open(self, name, *cells, scheme="light"):
        """Open a notebook of code cells in a page of its own, kernel started, nothing run."""
        notebook = nbformat.v4.new_notebook(
            cells=[nbformat.v4.new_code_cell(cell) for cell in cells],
            metadata={
                "kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}
            },
        )
        nbformat.write(notebook, self.folder / f"{name}.ipynb")
        page = self.browser.new_page(viewport={"width": 1280, "height": 1000}, color_scheme=scheme)
        page.add_init_script("window.pwn = () => { window.pwned = true }")
        page.goto(f"http://127.0.0.1:{self.port}/doc/tree/{name}.ipynb?reset")
        ready(page)
        return page

    def stop(self):
        self.process.send_signal(signal.SIGINT)
        self.process.send_signal(signal.SIGINT)
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()


def ready(page):
    """Wait until the kernel of the notebook in a page answers."""
    context = "window.jupyterapp?.shell.currentWidget?.sessionContext"
    page.wait_for_function(f"() => {context}?.isReady && {context}.session?.kernel", timeout=60_000)
    page.evaluate(f"async () => {{ await {context}.session.kernel.info; }}")


def run(page, cell):
    """Run a cell by its number, select it, and wait until it is done without an error."""
    done = page.evaluate(
        """async (n) => { const notebook = window.jupyterapp.shell.currentWidget.content;
        notebook.activeCellIndex = n; notebook.deselectAll(); const { model } = notebook.activeCell;
        await window.jupyterapp.commands.execute('notebook:run-cell');
        return [model.executionCount, model.outputs.toJSON().filter((o) => o.output_type === 'error')]; }""",
        cell,
    )
    assert done[0] and not done[1], done
