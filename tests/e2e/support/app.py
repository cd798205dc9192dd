"""What a web application does to a proxy: uploads, streams, ranges, events, a form, a WebSocket."""

import asyncio
import hashlib
import sys
import time

from aiohttp import web

PAGE = """<!doctype html><title>page</title>
<form id=form method=post action=/form enctype=multipart/form-data target=answer>
<input type=file name=file id=input><input name=word value=gr\u00fcn></form>
<iframe name=answer id=frame></iframe><pre id=out></pre>
<img src=/wait>
<script>
(async () => {
  const out = [];
  try {
    const bytes = new Uint8Array(1 << 20).map((_, i) => i * 7 + (i >> 8));
    let answer = await fetch('/upload', {method: 'POST', body: bytes});
    out.push('upload ' + await answer.text());
    const reader = (await fetch('/stream')).body.getReader();
    let length = 0, pieces = 0;
    for (;;) {
      const {done, value} = await reader.read();
      if (done) break;
      length += value.length;
      pieces += 1;
    }
    out.push('stream ' + length + ' ' + (pieces > 1));
    out.push('events ' + await new Promise((ok, no) => {
      const source = new EventSource('/events?n=3');
      let seen = 0;
      source.onmessage = () => { seen += 1; if (seen == 3) { source.close(); ok(seen); } };
      source.onerror = no;
    }));
    out.push('socket ' + await new Promise((ok, no) => {
      const socket = new WebSocket('ws://' + location.host + '/socket');
      socket.onopen = () => socket.send(bytes);
      socket.onmessage = async (event) => { ok((await event.data.arrayBuffer()).byteLength); socket.close(); };
      socket.onerror = no;
    }));
    const files = new DataTransfer();
    files.items.add(new File([bytes], 'bytes.bin'));
    input.files = files.files;
    const loaded = new Promise((ok) => {
      const frame = document.getElementById('frame');
      frame.onload = () => { const text = frame.contentDocument.body.textContent; if (text) ok(text); };
    });
    form.submit();
    out.push('form ' + await loaded);
  } catch (error) {
    out.push('error ' + error);
  }
  document.getElementById('out').textContent = out.join('|');
  await fetch('/done', {method: 'POST'});
})();
</script>"""


def summary(digest, length):
    return f"{length} {digest.hexdigest()}"


async def page(request):
    return web.Response(text=PAGE, content_type="text/html")


async def upload(request):
    """Reads the body piece by piece."""
    digest, length = hashlib.sha256(), 0
    async for piece in request.content.iter_any():
        digest.update(piece)
        length += len(piece)
    return web.Response(text=summary(digest, length))


async def form(request):
    fields = await request.post()
    content = fields["file"].file.read()
    return web.Response(text=f"{fields['word']} {summary(hashlib.sha256(content), len(content))}")


async def stream(request):
    """A hundred chunks, with a breath between them."""
    response = web.StreamResponse()
    response.enable_chunked_encoding()
    await response.prepare(request)
    for i in range(100):
        await response.write(bytes([i]) * 5000)
        await asyncio.sleep(0.001)
    await response.write_eof()
    return response


async def echo(request):
    """Sends back what comes while it still comes."""
    response = web.StreamResponse()
    response.enable_chunked_encoding()
    await response.prepare(request)
    async for piece in request.content.iter_any():
        await response.write(piece)
    await response.write_eof()
    return response


async def events(request):
    """Each event tells when it was sent."""
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-cache"})
    await response.prepare(request)
    for _ in range(int(request.query["n"])):
        await asyncio.sleep(0.01)
        await response.write(f"data: {time.time_ns()}\n\n".encode())
    return response


async def socket(request):
    peer = web.WebSocketResponse(max_msg_size=32 << 20)
    await peer.prepare(request)
    async for message in peer:
        await peer.send_bytes(message.data)
    return peer


async def file(request):
    return web.FileResponse("file")


async def wait(request):
    """Answers when the page says that it has done everything."""
    await request.app["done"].wait()
    return web.Response(status=404)


async def done(request):
    request.app["done"].set()
    return web.Response()


async def begin(app):
    app["done"] = asyncio.Event()


app = web.Application(client_max_size=64 << 20)
app.on_startup.append(begin)
app.add_routes([
    web.get("/", page),
    web.post("/upload", upload),
    web.put("/upload", upload),
    web.post("/form", form),
    web.get("/stream", stream),
    web.post("/echo", echo),
    web.get("/events", events),
    web.get("/socket", socket),
    web.get("/file", file),
    web.get("/wait", wait),
    web.post("/done", done),
])
web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]), access_log=None)
