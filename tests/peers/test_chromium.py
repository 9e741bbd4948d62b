"""Chromium: the pages of the examples and the guide, over a service whose model is held back."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page, async_playwright, expect

from tests.docs.pages import README, write_files
from tests.docs.web import web_page
from tests.support.mock_answers import call, cut, hold, say, status
from tests.support.mock_provider import MockProvider
from tests.support.process import PATIENCE, ServiceProcess
from tests.support.program import AGENTS, ROOT, line_of, program

CHROMIUM = shutil.which("chromium")
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
RECORD_TOOLS = """
    window.states = [];
    const record = (node) => node.dataset?.status && states.push(node.dataset.status);
    new MutationObserver((changes) => changes.forEach((one) => one.addedNodes.forEach(record)))
        .observe(document, { childList: true, subtree: true });
"""

expect.set_options(timeout=PATIENCE * 1000)

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.skipif(
        CHROMIUM is None and os.environ.get("CI") != "true",
        reason="chromium is not installed: apt-get install chromium",
    ),
]


@dataclass(frozen=True)
class Stage:
    """A browser's page, the provider behind it, and the address of the web app between them."""

    page: Page
    provider: MockProvider
    polos: str
    port: int

    async def ask(self, view: str = "progress") -> None:
        """Ask through the page."""
        await self.page.get_by_label(view, exact=True).check()
        await self.page.get_by_role("button", name="Ask").click()

    async def shows(self, *texts: str) -> None:
        """Wait until the page shows these paragraphs of text, and no other."""
        await expect(self.page.locator("#answer p")).to_have_text(list(texts))

    async def says(self, text: str) -> None:
        """Wait until the status line has this text."""
        await expect(self.page.get_by_role("status")).to_have_text(text)


@asynccontextmanager
async def web_app(polos: str, port: int = 0) -> AsyncIterator[int]:
    """Run the web app, as a user does; yield its port."""
    command = ("uvicorn", "examples.web.app:app", "--port", str(port))
    async with program(*command, address=polos) as process:
        said = re.search(r"127\.0\.0\.1:(\d+)", await line_of(process, "running on"))
        assert said is not None
        yield int(said[1])


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    """Start the browser, with a profile of its own."""
    assert CHROMIUM is not None, "chromium is missing, and with CI=true that is a failure"
    async with async_playwright() as playwright:
        started = await playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield started
        await started.close()


@pytest_asyncio.fixture(loop_scope="module")
async def behind(tmp_path: Path) -> AsyncIterator[tuple[MockProvider, str]]:
    """Run provider and service."""
    async with MockProvider() as provider:
        key = {"OPENAI_API_KEY": "a key", "OPENAI_BASE_URL": provider.url}
        async with ServiceProcess(AGENTS, tmp_path / "runs.db", cwd=ROOT, **key) as service:
            yield provider, service.address


@asynccontextmanager
async def page_of(browser: Browser, port: int) -> AsyncIterator[Page]:
    """Open the page, with nothing stored; nothing may go wrong in it."""
    wrong: list[str] = []
    context = await browser.new_context(viewport={"width": 360, "height": 640})
    page = await context.new_page()
    page.on("pageerror", lambda error: wrong.append(str(error)))
    await page.add_init_script(RECORD_TOOLS)
    await page.goto(f"http://127.0.0.1:{port}/")
    yield page
    await context.close()
    assert wrong == []


@pytest_asyncio.fixture(loop_scope="module")
async def stage(browser: Browser, behind: tuple[MockProvider, str]) -> AsyncIterator[Stage]:
    """Set everything up."""
    provider, polos = behind
    async with web_app(polos) as port, page_of(browser, port) as page:
        yield Stage(page, provider, polos, port)


@pytest.mark.parametrize("view", ["text", "progress"])
async def test_text_appears_as_it_comes(stage: Stage, view: str) -> None:
    gate = asyncio.Event()
    stage.provider.reply(say("It is", " 21 °C"), hold(gate), say(" in Tokyo."))
    await stage.ask(view)
    await stage.shows("It is 21 °C")
    await stage.says("Answering…")
    answer = stage.page.get_by_label("Answer")
    await expect(answer).to_have_attribute("aria-busy", "true")
    gate.set()
    await stage.shows("It is 21 °C in Tokyo.")
    await stage.says("Done." if view == "text" else "Done, 10 tokens.")
    await expect(answer).to_have_attribute("aria-busy", "false")


@pytest.mark.parametrize("view", ["text", "progress"])
async def test_reload_in_the_middle_goes_on_where_the_page_was(stage: Stage, view: str) -> None:
    gate, sockets = asyncio.Event(), list[str]()
    stage.provider.reply(say("One", " two"), hold(gate), say(" three", " four"))
    await stage.ask(view)
    await stage.shows("One two")
    stage.page.on("websocket", lambda socket: sockets.append(socket.url))
    await stage.page.reload()
    await stage.shows("One two")
    gate.set()
    await stage.shows("One two three four")
    # After agent_start, step_start and two pieces of text: those are not sent again.
    assert [url.rpartition("=")[2] for url in sockets] == ["4"]
    await expect(stage.page.locator("[aria-busy]")).to_have_attribute("aria-busy", "false")
    await stage.page.reload()
    await stage.shows("One two three four")
    assert len(sockets) == 1


async def test_address_of_a_run_shows_it_in_another_browser(stage: Stage, browser: Browser) -> None:
    gate = asyncio.Event()
    stage.provider.reply(say("One", " two"), hold(gate), say(" three"))
    await stage.ask()
    await stage.shows("One two")
    async with page_of(browser, stage.port) as other:
        await other.goto(stage.page.url)
        await expect(other.locator("#answer p")).to_have_text("One two")
        gate.set()
        await expect(other.locator("#answer p")).to_have_text("One two three")
        await stage.shows("One two three")


async def test_page_goes_on_when_the_web_app_comes_back(
    browser: Browser, behind: tuple[MockProvider, str]
) -> None:
    provider, polos = behind
    gate = asyncio.Event()
    provider.reply(say("One", " two"), hold(gate), say(" three"))
    async with AsyncExitStack() as stack:
        async with web_app(polos) as port:
            page = await stack.enter_async_context(page_of(browser, port))
            stage = Stage(page, provider, polos, port)
            await stage.ask()
            await stage.shows("One two")
        await stage.says("The connection was lost. Trying again…")
        gate.set()
        await stack.enter_async_context(web_app(polos, port))
        await stage.shows("One two three")
        await stage.says("Done, 10 tokens.")


async def test_tool_progress_shows(stage: Stage) -> None:
    gate = asyncio.Event()
    stage.provider.reply(say("I look."), call("get_weather", {"city": "Oslo"}))
    stage.provider.reply(hold(gate), say("It snows."))
    await stage.ask()
    tool = stage.page.locator(".tool")
    await expect(tool).to_have_attribute("data-status", "done")
    await expect(tool.locator("code")).to_have_text('get_weather({"city": "Oslo"})')
    await expect(tool.locator(".state")).to_have_text("done in 0.3 s")
    await stage.says("Calling get_weather…")
    assert await stage.page.evaluate("states") == ["executing", "done"]
    gate.set()
    await stage.shows("I look.", "It snows.")
    await stage.says("Done, 20 tokens.")


async def test_tool_progress_outlives_a_reload(stage: Stage) -> None:
    gate = asyncio.Event()
    stage.provider.reply(call("get_weather", {"city": "Atlantis"}))
    stage.provider.reply(hold(gate), say("Nobody knows."))
    await stage.ask()
    failed = stage.page.locator(".tool[data-status=failed] .state")
    await expect(failed).to_contain_text("There is no weather for 'Atlantis'")
    await stage.page.reload()
    await expect(failed).to_contain_text("There is no weather for 'Atlantis'")
    gate.set()
    await stage.shows("Nobody knows.")
    assert await stage.page.locator(".tool").count() == 1


@pytest.mark.parametrize("view", ["text", "progress"])
async def test_failed_run_shows_as_an_error(stage: Stage, view: str) -> None:
    stage.provider.reply(status(401, {"error": {"message": "no"}}))
    await stage.ask(view)
    line = stage.page.get_by_role("status")
    await expect(line).to_have_class("error")
    await expect(line).to_contain_text("HTTP 401")
    await stage.shows()


@pytest.mark.parametrize("view", ["text", "progress"])
async def test_retry_takes_back_what_was_said(stage: Stage, view: str) -> None:
    gate, again = asyncio.Event(), asyncio.Event()
    stage.provider.reply(say("Wrong", " start"), hold(gate), cut())
    stage.provider.reply(hold(again), say("Right", " from the start."))
    await stage.ask(view)
    await stage.shows("Wrong start")
    gate.set()
    await stage.says("Trying again…")
    await stage.shows()
    await stage.page.reload()
    again.set()
    await stage.shows("Right from the start.")
    await expect(stage.page.get_by_role("status")).to_contain_text("Done")


async def test_unknown_run_is_an_error(stage: Stage) -> None:
    await stage.page.goto(f"http://127.0.0.1:{stage.port}/#text/nothing")
    await stage.page.reload()
    await stage.says("There is no run 'nothing'.")


async def test_page_fits_a_phone_and_takes_no_markup_from_a_model(stage: Stage) -> None:
    text = f"<b id=bold>{'long' * 100}</b>"
    stage.provider.reply(say(text))
    await stage.ask()
    await stage.shows(text)
    assert await stage.page.locator("#bold").count() == 0
    assert await stage.page.evaluate("document.documentElement.scrollWidth <= innerWidth")


async def test_page_follows_the_color_scheme(stage: Stage) -> None:
    color = "getComputedStyle(document.body).backgroundColor"
    await stage.page.emulate_media(color_scheme="light")
    assert await stage.page.evaluate(color) == "rgb(244, 245, 247)"
    await stage.page.emulate_media(color_scheme="dark")
    assert await stage.page.evaluate(color) == "rgb(19, 21, 25)"


async def test_page_of_the_guide_takes_back_what_is_void_and_shows_why_a_run_failed(
    browser: Browser, tmp_path: Path
) -> None:
    write_files(README, tmp_path)
    async with MockProvider() as provider:
        model = {"OPENAI_API_KEY": "test", "OPENAI_BASE_URL": provider.url}
        app = tmp_path / "weather.py"
        async with ServiceProcess(app, tmp_path / "runs.db", **model) as service:
            env = {**model, "POLOS_ADDRESS": service.address}
            async with web_page(tmp_path, env) as url:
                page = await browser.new_page()
                await page.goto(url)
                provider.reply(say("It is 2", "2"), cut())
                provider.reply(say("It is 21 degrees."))
                await page.get_by_role("button").click()
                await expect(page.locator("p")).to_have_text("It is 21 degrees.")
                provider.reply(status(401))
                await page.get_by_role("button").click()
                await expect(page.locator("p")).to_contain_text("OPENAI_API_KEY")
                await page.close()
