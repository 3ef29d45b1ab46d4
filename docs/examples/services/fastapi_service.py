"""A FastAPI service over the default backend of .ctxrc.

Run it with `uvicorn fastapi_service:app --timeout-graceful-shutdown 30`: after SIGTERM, uvicorn waits so long for the
responses in flight, and then for the end of `lifespan`.
"""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse, JSONResponse, Response, StreamingResponse
from pydantic import BaseModel

from ctxbackends import Backend, BackendError, Registry, http_status_of
from ctxbackends.integrations.asgi import ClientDisconnectedError, sse_events, until_disconnect

logger = logging.getLogger("service")


class Question(BaseModel):
    prompt: str


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    registry = app.state.registry = Registry.from_ctxrc()
    yield
    await registry.drain(timeout=20)  # of what is not a response: background tasks


app = FastAPI(lifespan=lifespan)


def get_backend(request: Request) -> Backend:
    registry: Registry = request.app.state.registry
    return registry.default()


@app.exception_handler(BackendError)
async def report_failure(_: Request, error: BackendError) -> Response:
    logger.warning("%s", type(error).__name__)  # its text may contain the prompt
    return JSONResponse({"error": type(error).__name__}, status_code=http_status_of(error))


@app.exception_handler(ClientDisconnectedError)
async def ignore_disconnect(_: Request, __: ClientDisconnectedError) -> Response:
    return Response(status_code=499)  # nobody reads it


@app.post("/complete")
async def complete(question: Question, request: Request) -> dict[str, str]:
    completion = await until_disconnect(request, get_backend(request).complete(question.prompt))
    return {"text": completion.text}


@app.get("/stream")
async def stream(prompt: str, request: Request) -> Response:
    events = sse_events(get_backend(request).stream(prompt), request=request)
    return StreamingResponse(events, media_type="text/event-stream", headers={"Cache-Control": "no-store"})


@app.get("/health")
async def health(request: Request) -> Response:
    status = await get_backend(request).status()
    content = {"state": status.state, "model": status.model}
    return JSONResponse(content, status_code=200 if status.state == "ready" else 503)


@app.get("/")
async def page() -> Response:
    return HTMLResponse(PAGE)


PAGE = """<!doctype html>
<title>Chat</title>
<form><input name="prompt" autofocus> <button>Ask</button></form>
<p id="answer"></p><p id="state"></p>
<script>
const form = document.querySelector("form");
form.addEventListener("submit", event => {
  event.preventDefault();
  answer.textContent = "";
  state.textContent = "waiting";
  const source = new EventSource("/stream?" + new URLSearchParams(new FormData(form)));
  source.onmessage = message => {
    const part = JSON.parse(message.data);
    if (part.type === "text") answer.textContent += part.text;
    if (part.type === "text" || part.type === "loading") state.textContent = part.type;
    if (part.type === "finish" || part.type === "error") {
      state.textContent = part.finish_reason ?? part.error;
      source.close();  // or the browser would ask again
    }
  };
  source.onerror = () => { state.textContent = "disconnected"; source.close(); };
});
</script>
"""
