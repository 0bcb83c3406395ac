"""Reports: intervals that hold, pairs that are paired, audits that tell a model that looks from one that does not."""

import csv as csv_library
import io
import json
import random
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from scipy import stats

from stlite.__main__ import main
from stlite.data.sample import Sample
from stlite.eval import comparisons, conditions, metrics, render, report, statistics
from stlite.eval.evaluate import evaluate

TASKS, WAYS = ("direction", "landmark", "action"), ("forward", "reverse")


def record(group, task, way, value, name="", **more) -> dict:
    reason = "right" if value else "wrong"
    row = {"id": f"{group}/{task}/{way}{name}", "task": task, "way": way, "kind": "choice"}
    row |= {"part": "", "video": "a.mp4"}
    row |= {
        "group": str(group),
        "gold": "A",
        "answer": "A" if value else "B",
        "value": float(value),
    }
    row |= {
        "options": list("wxyz"),
        "reason": reason,
        "reply": "",
        "explanation": "",
        "tokens": 1,
        "seconds": 0.1,
    }
    return row | {"order": "forward"} | more


def drawn(groups: int, rate: float = 0.7, seed: int = 0, spread: float = 0.8) -> list[dict]:
    """Records of recordings that differ: some are easy, some hard."""
    rng, rows = np.random.default_rng(seed), []
    for g in range(groups):
        logit = np.log(rate / (1 - rate)) + spread * rng.standard_normal()
        rows += [
            record(g, t, w, rng.random() < 1 / (1 + np.exp(-logit))) for t in TASKS for w in WAYS
        ]
    return rows


def mean(records) -> dict:
    return metrics.accuracy_table(records)[-1]


def test_a_cell_of_8_in_10():
    rows = metrics.accuracy_table([record(i, "action", "forward", i < 8) for i in range(10)])
    assert rows[0]["accuracy"] == 0.8 and rows[0]["n"] == rows[0]["groups"] == 10
    assert (rows[0]["wilson_low"], rows[0]["wilson_high"]) == pytest.approx(
        (0.4902, 0.9433), abs=1e-4
    )
    assert rows[0]["chance"] == 0.25 and rows[0]["chance_adjusted"] == pytest.approx(0.55 / 0.75)


def test_the_mean_weighs_cells_alike_and_leaves_routes_out():
    rows = [record(i, "action", "forward", 1) for i in range(30)]
    rows += [record(i, "action", "reverse", 0) for i in range(10)]
    route = {"kind": "route", "options": [], "route": {"direction": 0.5, "tau": None}}
    rows += [record(i, "route", "forward", 0.9, **route) for i in range(5)]
    made = metrics.accuracy_table(rows)
    assert (
        made[-1]["task"] == statistics.MEAN and made[-1]["accuracy"] == 0.5 and made[-1]["n"] == 40
    )
    assert (
        made[0]["task"] == "route" and made[0]["wilson_low"] is None and made[0]["chance"] is None
    )


def test_failures_stay_in_the_denominator():
    reasons = [
        "right",
        "wrong",
        "failed",
        "truncated",
        "absent",
        "ambiguous",
        "unreadable",
        "right",
    ]
    row = metrics.accuracy_table(
        [record(i, "action", "forward", r == "right", reason=r) for i, r in enumerate(reasons)]
    )[0]
    assert (row["accuracy"], row["unparsed"], row["truncated"], row["failed"]) == (
        0.25,
        0.375,
        0.125,
        0.125,
    )


def test_asking_a_recording_the_same_five_times_adds_no_knowledge():
    once = drawn(80)
    five = [r | {"id": f"{r['id']}#{i}"} for r in once for i in range(5)]
    a, b = mean(once), mean(five)
    assert (a["low"], a["high"]) == pytest.approx((b["low"], b["high"]), abs=1e-9)
    width = (
        metrics.accuracy_table(five)[0]["wilson_high"]
        - metrics.accuracy_table(five)[0]["wilson_low"]
    )
    assert width < 0.6 * (
        metrics.accuracy_table(five)[0]["high"] - metrics.accuracy_table(five)[0]["low"]
    )


def test_with_one_question_each_the_interval_is_the_textbook_one():
    rows = [record(i, "action", "forward", i % 10 < 7) for i in range(1000)]
    half = 1.96 * (0.7 * 0.3 / 1000) ** 0.5
    assert (mean(rows)["low"], mean(rows)["high"]) == pytest.approx(
        (0.7 - half, 0.7 + half), abs=0.003
    )
    assert mean(rows)["min_detectable"] == pytest.approx(2.8 * 2**0.5 * half / 1.96, rel=0.01)


@pytest.mark.parametrize("groups", [60, 200])
def test_intervals_cover_the_truth(groups):
    truth, hits = 0.5, 0
    for seed in range(120):
        sums, counts = statistics.cluster_sums(drawn(groups, truth, seed))[1:]
        found = statistics.intervals(sums, counts, [[1 / 6] * 6], draws=400)[0]
        hits += found["low"] <= truth <= found["high"]
    assert 108 <= hits < 120


def test_agreement_of_all_is_no_certainty():
    row = metrics.accuracy_table([record(i, "action", "forward", 1) for i in range(20)])[0]
    assert row["low"] == pytest.approx(row["wilson_low"]) and row["high"] == 1
    one = metrics.accuracy_table([record(0, "action", "forward", 1, str(i)) for i in range(20)])[0]
    assert (one["low"], one["high"], one["groups"]) == (0, 1, 1)


def test_a_report_of_nothing_says_so():
    with pytest.raises(ValueError, match="at least one record"):
        metrics.accuracy_table([])
    with pytest.raises(ValueError, match="one question under the id '0/direction/forward'"):
        comparisons.compare_runs(drawn(2), [r | {"options": ["w", "x"]} for r in drawn(2)])
    with pytest.raises(ValueError, match="some id in both"):
        comparisons.compare_runs(drawn(2), [r | {"id": r["id"] + "x"} for r in drawn(2)])


def test_the_gap_is_paired_inside_recordings():
    easy = [record(g, "action", w, g % 2) for g in range(60) for w in WAYS]
    assert (
        metrics.forward_reverse_gap(easy)[0]["high"]
        < 0.07
        < metrics.accuracy_table(easy)[0]["high"] - 0.5
    )
    loose = [r | {"group": r["id"]} for r in easy]
    assert metrics.forward_reverse_gap(loose)[0]["high"] > 0.15
    three = [
        record(g, t, w, w == "forward" or g % 4 > 0) for g in range(40) for t in TASKS for w in WAYS
    ]
    rows = metrics.forward_reverse_gap(three)
    assert [r["gap"] for r in rows] == pytest.approx([0.25] * 4) and rows[-1]["low"] > 0.1


def test_intervals_do_not_depend_on_the_order_of_questions_within_recordings():
    rows = drawn(30)
    turned = sorted(rows, key=lambda r: (int(r["group"]), r["task"], r["way"]), reverse=False)
    assert mean(rows) == mean(turned) and mean(rows) == mean(rows)


def test_comparing_is_paired_exact_and_the_same_from_both_sides():
    a = drawn(80, seed=1)
    better = random.Random(0)
    b = [
        r if r["value"] or better.random() < 0.6 else record(r["group"], r["task"], r["way"], 1)
        for r in a
    ]
    forth, back = comparisons.compare_runs(a, b), comparisons.compare_runs(b, a)
    for x, y in zip(forth["tables"]["Difference"], back["tables"]["Difference"]):
        assert (
            x["difference"] == pytest.approx(-y["difference"])
            and x["gained"] == y["lost"]
            and x["lost"] == 0
        )
        assert x["mcnemar"] == pytest.approx(
            stats.binomtest(x["gained"], x["gained"] + x["lost"]).pvalue
        )
        assert x["low"] > 0 and y["high"] < 0 and x["mcnemar"] <= x["p"] <= x.get("holm", 1)
    flips = forth["tables"]["Flips"]
    assert (
        len(flips) == sum(x["value"] != y["value"] for x, y in zip(a, b))
        and flips[0]["change"] == "wrong to right"
    )


def test_a_run_compared_with_itself_differs_in_nothing():
    rows = drawn(40)
    made = comparisons.compare_runs(rows, rows[6:])
    assert (
        "234 questions in both, 6 only in a, 0 only in b" in made["notes"][0]
        and not made["tables"]["Flips"]
    )
    assert all(
        r["difference"] == 0 and r["p"] == 1 and r["low"] < 0 < r["high"]
        for r in made["tables"]["Difference"]
    )


def test_guesses_that_need_no_video_stand_beside_the_score():
    rows = [
        record(i // 2, "action", WAYS[i % 2], i % 2, gold="ABCD"[min(i % 5, 3)]) for i in range(100)
    ]
    rows = [r | {"options": ["ab" * (1 + 3 * (x == r["gold"])) for x in "ABCD"]} for r in rows]
    found = {r["baseline"]: r for r in report.summary(rows)["tables"]["Without looking"]}
    assert (
        found["always D"]["accuracy"] == 0.4
        and found["always D"]["low"] < 0.4 < found["always D"]["high"]
    )
    assert found["longest"]["accuracy"] == 1 and found["shortest"]["accuracy"] == 0
    assert found["text classifier"]["accuracy"] > 0.9 and found["longest"]["chance"] == 0.25


def test_shortcuts_of_a_large_run_are_tried_on_whole_recordings_of_it(monkeypatch):
    monkeypatch.setattr(metrics, "LARGE", 100)
    assert (
        100 <= metrics.shortcuts(drawn(60))[0]["n"] < 106
        and metrics.shortcuts(drawn(10))[0]["n"] == 60
    )


def test_routes_are_reported_by_what_they_are_made_of():
    made = [
        {"direction": d, "landmark_f1": f, "tau": None}
        for d, f in ((1.0, None), (0.5, 0.4), (0.0, 0.0))
    ]
    rows = [
        record(i, "route", "reverse", 0.5, kind="route", options=[], route=m)
        for i, m in enumerate(made)
    ]
    made = report.summary(rows)["tables"]
    assert [*made] == ["Accuracy", "Routes"] and len(made["Accuracy"]) == 1
    wanted = {
        "task": "route",
        "way": "reverse",
        "n": 3,
        "direction": 0.5,
        "landmark_f1": 0.2,
        "tau": None,
    }
    assert made["Routes"] == [wanted]


def test_a_run_of_one_question_is_reported_without_certainty():
    made = report.summary([record(0, "action", "forward", 1)])
    assert made["tables"]["Accuracy"][0]["low"] == 0 and made["tables"]["Accuracy"][0]["high"] == 1
    assert "1 questions of 1 groups" in made["notes"][0]


HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "</td></table><h1>",
    "=HYPERLINK(1)",
]
HOSTILE += ["a|b\n# c", "[x](javascript:alert(1))", "\u202egpj.exe", "\ud83d", "\0", "<!--", "]]>"]
HOSTILE += ["&lt;script&gt;", "{{7*7}}", "@SUM"]


def hostile() -> dict:
    a = [record(i, "action", "forward", 0, answer=h, reason=h) for i, h in enumerate(HOSTILE)]
    b = [r | {"value": 1.0, "id": r["id"]} for r in a]
    made = report.merge_reports(
        report.summary(a, HOSTILE[0]), comparisons.compare_runs(a, b, HOSTILE[:2])
    )
    assert len(next(rows for name, rows in made["tables"].items() if "Flips" in name)) == len(
        HOSTILE
    )
    return made


def test_nothing_hostile_stands_in_a_page(tmp_path):
    svg = "<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>"
    page = render.save(
        hostile(), tmp_path / "r.html", [(HOSTILE[1], svg), ("png", b"\x89PNG")]
    ).read_text()
    tags = []
    parser = HTMLParser()
    parser.handle_starttag = lambda tag, attributes: tags.append((tag, dict(attributes)))
    parser.feed(page)
    ours = {
        "meta",
        "title",
        "style",
        "h1",
        "h2",
        "p",
        "table",
        "tr",
        "th",
        "td",
        "figure",
        "img",
        "figcaption",
    }
    assert {t for t, _ in tags} <= ours
    assert all(
        set(a) <= {"src", "alt"} and a["src"].startswith("data:image/")
        for t, a in tags
        if t == "img"
    )
    assert "default-src 'none'" in page and "\u202e" not in page and "alert(1)</script>" not in page


def test_markdown_and_csv_and_text_hold_hostile_cells_in_their_cells(tmp_path):
    made = hostile()
    markdown = render.save(made, tmp_path / "r.md").read_text()
    assert "<" not in markdown and not re.search(r"(?<!\\)\]\(", markdown)
    assert len([line for line in markdown.splitlines() if line.startswith("| 4/action")]) == 1
    rows = list(csv_library.reader(io.StringIO(render.csv(made))))
    assert len({len(r) for r in rows}) == 1 and not any(
        cell[:1] in ("=", "@") for r in rows for cell in r
    )
    assert "\0" not in render.text(made) and "\u202e" not in render.text(made)


def test_every_rendering_holds_the_same_numbers(tmp_path):
    made = report.summary(drawn(30), "st-r1")
    value = made["tables"]["Accuracy"][-1]["accuracy"]
    for ending in (".html", ".md", ".txt"):
        assert f"{100 * value:.1f}" in render.save(made, tmp_path / f"r{ending}").read_text()
    assert str(value) in render.save(made, tmp_path / "r.csv").read_text()
    assert json.loads(render.save(made, tmp_path / "r.json").read_text()) == made
    with pytest.raises(ValueError, match=r"expected a name ending in \.html"):
        render.save(made, tmp_path / "r.pdf")


def questions(n: int = 60) -> list[Sample]:
    made, rng = [], random.Random(0)
    for i in range(n):
        words, walk = (
            rng.sample(("gate", "bridge", "door", "tree", "car", "stairs"), 4),
            f"w{i // 3}",
        )
        asked = "landmark", WAYS[i % 2], "Which?", "ABCD"[i % 4]
        made.append(Sample(f"q{i}", f"{walk}.mp4", *asked, words, group=walk))
    return made


def seeing(orders=("forward",), skill: float = 0.9):
    """Make a model that knows the answer when the frames come in one of these orders, and else guesses a text."""

    def generate(samples, order):
        replies = []
        for s in samples:
            rng = random.Random(s.id.split("@")[0] + order)
            text = (
                s.gold
                if order in orders and rng.random() < skill
                else rng.choice(sorted(s.options))
            )
            replies.append(
                {"reply": f"<answer>{'ABCD'[s.options.index(text)]}</answer>", "tokens": 1}
            )
        return replies

    return generate


@pytest.mark.parametrize(
    ("orders", "looks", "ordered"),
    [
        (("forward",), True, True),
        (("forward", "shuffled", "reversed"), True, False),
        (conditions.CLAIMS.keys() | {"forward"}, False, False),
    ],
)
def test_the_arrow_of_time_tells_what_a_model_uses(tmp_path, orders, looks, ordered):
    samples, generate = questions(), seeing(orders)
    base = evaluate(samples, generate, tmp_path / "base", progress=False)
    made = conditions.arrow_of_time(samples, generate, tmp_path / "audit", base, progress=False)
    assert [r["run"] for r in made["tables"]["Arrow of time"]] == [
        "forward",
        "blank",
        "single",
        "shuffled",
        "reversed",
    ]
    assert (
        not (tmp_path / "audit" / "forward").exists()
        and (tmp_path / "audit" / "blank" / "records.jsonl").exists()
    )
    said = made["notes"][0]
    assert (": it looks at the video" in said) == looks and (
        "nothing shows that it looks" in said
    ) != looks
    assert (": it uses their order" in said) == ordered and (
        "nothing shows that it uses their order" in said
    ) != ordered
    assert ("give some answers away" in said) == (not looks)


def test_rotation_tells_a_text_from_a_letter(tmp_path):
    samples = questions()
    base = evaluate(samples, seeing(), tmp_path / "base", progress=False)
    made = conditions.option_rotation(samples, seeing(), tmp_path / "text", base, progress=False)
    assert made["notes"][0].startswith("100.0 %")
    assert sum(r["gold"] for r in made["tables"]["By letter"]) == pytest.approx(1)

    def always_b(samples, order):
        return [{"reply": "<answer>B</answer>", "tokens": 1} for _ in samples]

    base = evaluate(samples, always_b, tmp_path / "b", progress=False)
    made = conditions.option_rotation(samples, always_b, tmp_path / "letter", base, progress=False)
    assert made["notes"][0].startswith("0.0 %")
    assert [(r["letter"], r["chosen"], r["accuracy"]) for r in made["tables"]["By letter"]] == [
        ("A", 0, 0), ("B", 1, 1), ("C", 0, 0), ("D", 0, 0),
    ]  # fmt: skip


def test_frames_and_direct_answers_are_set_beside_each_other(tmp_path):
    samples = questions()
    made = conditions.frames(
        samples, lambda n: seeing(skill=n / 20), tmp_path, (1, 16), progress=False
    )
    rows = made["tables"]["Number of frames"]
    assert [r["run"] for r in rows] == ["1 frames", "16 frames"] and "gains" in made["notes"][0]
    base = evaluate(samples, seeing(), tmp_path / "base", progress=False)
    made = conditions.direct_answer(
        samples, seeing(skill=0.3), tmp_path / "direct", base, progress=False
    )
    assert "Without thinking the model loses" in made["notes"][0]
    with pytest.raises(KeyError, match="q0"):
        conditions.direct_answer(samples, seeing(), tmp_path / "x", base[1:], progress=False)


def test_the_command_reports_on_two_runs(tmp_path, capsys):
    for name, skill in (("base", 0.3), ("trained", 0.9)):
        evaluate(questions(), seeing(skill=skill), tmp_path / name, progress=False)
    page, (base, trained) = tmp_path / "out.html", (tmp_path / name for name in ("base", "trained"))
    main(["report", str(base), str(trained), "--html", str(page)])
    said = capsys.readouterr().out
    for title in (
        "base: Accuracy",
        "base: Without looking",
        "base: Beside it",
        "base and trained: Difference",
    ):
        assert title in said and title in page.read_text()
    main(
        ["report", str(base / "records.jsonl"), str(trained / "records.jsonl")]
    )  # two files of one name
    assert f"{base}/records.jsonl and {trained}/records.jsonl: Flips" in capsys.readouterr().out


def test_thinking_the_other_way_is_counted_by_the_way_that_was_asked():
    said = {
        "forward": "Let's start by thinking reverse a, b",
        "reverse": "Let's start by thinking reverse a, b",
        "": "I look.",
    }
    rows = [r | {"reply": f"<think>{said[r['way']]}</think> <answer>A</answer>"} for r in drawn(3)]
    assert [(row["way"], row["other way"], row["same way"]) for row in metrics.thinking(rows)] == [
        ("forward", 1.0, 0.0), ("reverse", 0.0, 1.0)
    ]  # fmt: skip
    silent = [r | {"reply": f"<think>{said['']}</think> <answer>A</answer>"} for r in drawn(3)]
    assert {(row["other way"], row["same way"]) for row in metrics.thinking(silent)} == {(0.0, 0.0)}
