"""One JupyterLab for all tests of widgets; a browser for each file of them, since its driver runs an event loop."""

import pytest

from tests import clips
from tests.lab import CHROMIUM, Lab


@pytest.fixture(scope="session")
def videos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos")
    clips.encode(folder / "a.mp4", range(40), size=(160, 120))
    return folder


@pytest.fixture(scope="session")
def lab_server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lab")
    (folder / "videos").mkdir()
    for name in ("a.mp4", "b.mp4", "<img src=x onerror=pwn()>.mp4"):
        clips.encode(folder / "videos" / name, range(40), size=(160, 120))
    server = Lab(folder)
    yield server
    server.stop()


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        chromium = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def lab(lab_server, browser):
    lab_server.browser = browser
    return lab_server
