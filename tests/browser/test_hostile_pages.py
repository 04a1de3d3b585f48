"""Text of strangers on the pages: it is shown as text, no script of it runs, and no request leaves."""

from __future__ import annotations

import csv
import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from hqsam_pipelines.compare.comparison import compare
from hqsam_pipelines.compare.history import history
from hqsam_pipelines.compare.history import to_html as history_page
from hqsam_pipelines.compare.page import to_html as compare_page
from hqsam_pipelines.report.run import build_report
from tests.pipelines import report_repo, test_compare_hostile
from tests.pipelines.test_history import SMALL, write_report
from tests.pipelines.working_copy import git


class Server:
    """A server of this machine, and what it was asked for."""

    def __init__(self) -> None:
        asked: list[str] = []

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                asked.append(self.path)
                self.send_error(404)

            def log_message(self, *_: object) -> None:
                pass

        self.asked = asked
        self.http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.http.serve_forever, daemon=True).start()
        here = f"http://127.0.0.1:{self.http.server_port}"
        self.text = (
            f"=1+2\"'></title></style></textarea><script src={here}/script></script>"
            f"<img src={here}/img onerror=document.title='run'>"
            f"<a href=\"javascript:document.title='run'\">here</a>"
            "<script>document.title='run'</script>{{ 7 * 7 }}"
        )


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    found = Server()
    yield found
    found.http.shutdown()
    found.http.server_close()


@pytest.fixture(scope="module")
def hostile_report(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a miniature run whose free texts are hostile."""
    root = tmp_path_factory.mktemp("hostile")
    with pytest.MonkeyPatch.context() as patch:
        truth = report_repo.coco_json
        named = {"categories": [{"id": 1, "name": server.text}]}
        patch.setattr(report_repo, "coco_json", lambda rows: truth(rows) | named)
        repo = report_repo.Repo(root, images=8)
        repo.params["sources"]["dis5k"]["note"] = server.text
        repo.build()
    for path in root.glob("reports/metrics/*.json"):
        found = json.loads(path.read_bytes())
        for result in found["results"]:
            result["warnings"] = [server.text]
        path.write_text(json.dumps(found))
    for path in root.glob("data/benchmarks/*/index.json"):
        path.write_text(
            json.dumps(json.loads(path.read_bytes()) | {"dataset_version": server.text})
        )
    build_report(root=root, params=repo.params, out=root / "reports")
    return root / "reports" / "report.html"


@pytest.fixture(scope="module")
def hostile_history(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("past")
    write_report(root, SMALL, server.text)
    write_report(root, SMALL.replace("HQ4-mean", "<script>document.title='run'</script>"), "other")
    (root / "history.html").write_text(history_page(history(root)), encoding="utf-8")
    return root / "history.html"


@pytest.fixture(scope="module")
def hostile_comparison(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("difference")
    git(root, "init", "-q")
    for value in (0.5, 0.6):
        content = {
            test_compare_hostile.PLACE: test_compare_hostile.item(
                metrics={"mIoU": value}, warnings=[server.text]
            ),
            "dvc.lock": yaml.safe_dump(test_compare_hostile.LOCK).encode(),
            "params.yaml": yaml.safe_dump(
                {**test_compare_hostile.PARAMS, server.text: server.text * int(10 * value)}
            ).encode(),
        }
        for name, data in content.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(data)
        git(root, "add", "-A")
        git(root, "commit", "-q", "-m", server.text)
    page = compare_page(compare(root, "HEAD~1", "HEAD"))
    (root / "diff.html").write_text(page, encoding="utf-8")
    return root / "diff.html"


@pytest.mark.parametrize("name", ["hostile_report", "hostile_history", "hostile_comparison"])
def test_text_of_strangers_is_text(
    visit, server: Server, request: pytest.FixtureRequest, name: str
) -> None:
    path = request.getfixturevalue(name)
    opened = visit(path)
    page = opened.page
    assert opened.is_quiet(), (opened.said, opened.asked)
    assert server.text in page.evaluate("document.body.textContent")
    assert page.locator("body > script, main script:not([type])").count() <= 1
    assert page.locator("[onerror], a[href^=javascript], img[src]:not([src^='data:'])").count() == 0
    assert page.title() != "run" and not server.asked


def test_what_is_not_escaped_neither_runs_nor_asks(visit, server: Server, report: Path) -> None:
    """The page's policy, which a browser holds to even where a value was written raw."""
    path = report.with_name("raw.html")
    text = report.read_text(encoding="utf-8")
    path.write_text(text.replace("<body>", f"<body><p>{server.text}", 1), encoding="utf-8")
    opened = visit(path)
    opened.page.wait_for_selector("#browser .line.active")  # the page's own scripts run
    opened.page.get_by_text("here", exact=True).first.click()
    assert opened.page.title() != "run" and not server.asked
    assert any("Content Security Policy" in line for line in opened.said)


def test_no_class_becomes_a_formula_of_a_table(server: Server, hostile_report: Path) -> None:
    tables = hostile_report.parent / "tables"
    for name in ("instances.csv", "classes.csv"):
        with (tables / name).open(newline="", encoding="utf-8") as file:
            cells = {cell for row in csv.reader(file) for cell in row}
        assert f"'{server.text}" in cells and server.text not in cells, name
