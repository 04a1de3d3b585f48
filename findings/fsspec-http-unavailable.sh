#!/usr/bin/env bash
# fsspec 2026.9.0, http: a server that refuses the connection, and one that answers 503, are both reported as FileNotFoundError.
# Guess: FileNotFoundError is for 404 alone; a refused connection is an OSError of another kind, 503 an HTTP error.
# What happens: `open` and `cat` ask for the size first; whatever goes wrong there becomes FileNotFoundError, its cause only chained.
# Seen: fsspec 2026.9.0: refused: FileNotFoundError; 503: FileNotFoundError; 404: FileNotFoundError
# Hurts: shards or indexes read by URL: "not there" is taken for an incomplete set, and is not tried again, when the server is but restarting.

. "$(dirname "$0")/_setup.sh"
install fsspec==2026.9.0 aiohttp==3.14.5
cat > run.py <<'PY'
import http.server
import socket
import threading

import fsspec


class Answers(http.server.BaseHTTPRequestHandler):
    def answer(self):
        self.send_error(503 if "busy" in self.path else 404)

    do_GET = do_HEAD = answer

    def log_message(self, *words):
        pass


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answers)
threading.Thread(target=server.serve_forever, daemon=True).start()
base = f"http://127.0.0.1:{server.server_address[1]}"
with socket.socket() as taken:  # bound, but nobody listens
    taken.bind(("127.0.0.1", 0))
    refused = f"http://127.0.0.1:{taken.getsockname()[1]}/index.json"
    seen = []
    for name, url in (("refused", refused), ("503", f"{base}/busy.json"), ("404", f"{base}/none.json")):
        try:
            with fsspec.open(url) as file:
                file.read()
            seen.append(f"{name}: read")
        except Exception as error:
            seen.append(f"{name}: {type(error).__name__}")
print("; ".join(seen))
PY
seen=$(python run.py 2>/dev/null)
echo "seen now: fsspec 2026.9.0: $seen"
[ "$seen" = "refused: FileNotFoundError; 503: FileNotFoundError; 404: FileNotFoundError" ] || { echo "the behaviour changed"; exit 1; }
