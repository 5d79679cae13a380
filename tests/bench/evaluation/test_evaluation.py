"""The whole way from rows to the document, the tables and the card."""

import json

import numpy as np
import pytest

from tamiyo.bench.evaluation import evaluation
from tamiyo.bench.evaluation.card import card
from tamiyo.bench.evaluation.evaluation import Request, evaluate
from tamiyo.bench.evaluation.lineup import COHORTS, Lineup
from tamiyo.bench.evaluation.resampling import Figure
from tamiyo.bench.evaluation.result import CohortResult, SplitResult
from tamiyo.bench.evaluation.sheets import reliability_plot, sheets, span

PLACE = COHORTS.index("learned")
EVERYONE = (*COHORTS[:PLACE], "clone", *COHORTS[PLACE:])
"""All cohorts and another network."""


@pytest.fixture(scope="module")
def done(small_split, checkpoint, played):
    lineup = Lineup(EVERYONE, checkpoint, {"clone": checkpoint})
    request = Request([small_split], lineup, seeds=2, hosts=12)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluation, "play_all", lambda jobs, *_: played)
        return evaluate(request)


def test_a_request_is_a_job_for_each_split_and_seed(small_split):
    jobs = Request([small_split, small_split], Lineup(()), seeds=3, hosts=5).jobs()
    assert [job.index for job in jobs] == [0, 1, 2, 0, 1, 2]
    assert all(job.hosts == 5 for job in jobs)
    for nothing in ({"seeds": 0}, {"hosts": 0}):
        with pytest.raises(ValueError, match="nothing to evaluate"):
            Request([small_split], Lineup(()), **nothing)


def test_the_document_is_json_with_every_cohort(done):
    told = done.as_json()
    assert json.loads(json.dumps(told, allow_nan=False)) == told
    found = told["splits"]["small"]
    assert list(found["cohorts"]) == list(EVERYONE)
    assert found["runs"] == 24
    assert {"tamiyo", "torch", "learned"} <= set(told["versions"])
    oracle = found["cohorts"]["oracle"]["overall"]
    assert oracle["decision_accuracy"]["value"] == 1.0
    assert oracle["decision_accuracy"]["count"] == found["labelled"]
    assert oracle["auroc"]["value"] is None


def test_pairs_are_differences_of_means(done):
    [result] = done.results
    means = {name: rows.objective.mean() for name, rows in result.rows.items()}
    differences = {name: one for name, one in result.pairs.items() if " - " in name}
    assert len(differences) == 11
    for name, figure in differences.items():
        one, _, other = name.split(" ")
        assert figure.value == pytest.approx(means[one] - means[other]), name
        assert figure.count == 24
    assert result.pairs["learned - clone"] == Figure(0.0, 0.0, 0.0, 24)


def test_a_share_of_what_may_be_nothing_is_unknown(small_split, make_rows):
    random = np.random.default_rng(0)
    seed = np.repeat(np.arange(8), 5)

    def share(mean):
        oracle = make_rows(40, seed=seed, objective=random.normal(mean, 1.0, size=40))
        rules = make_rows(40, seed=seed, objective=0.5 * oracle.objective)
        played = {"no-op": make_rows(40, seed=seed), "rules": rules, "oracle": oracle}
        return SplitResult.of(small_split, [played]).pairs["rules / oracle"]

    assert np.isnan(share(0.0).value)
    assert share(3.0) == Figure(*[pytest.approx(0.5)] * 3, 40)


def test_groups_make_up_the_whole(done):
    [result] = done.results
    for cohort in result.cohorts.values():
        for groups in (cohort.kinds, cohort.data):
            sums = [
                found["objective"].value * found["objective"].count for found in groups.values()
            ]
            assert sum(sums) / 24 == pytest.approx(cohort.overall["objective"].value)


def test_every_run_of_every_cohort_has_a_record(done):
    records = list(done.records())
    assert len(records) == 24 * len(EVERYONE)
    assert {record["split"] for record in records} == {"small"}
    mean = np.mean([one["objective"] for one in records if one["cohort"] == "oracle"])
    assert mean == pytest.approx(done.results[0].figure("oracle.objective").value)


def test_sheets_are_rectangular_and_show_every_cohort(done):
    [result] = done.results
    found = {sheet.title: sheet for sheet in sheets(result)}
    assert len(found) == 7
    for sheet in found.values():
        assert {len(row) for row in sheet.rows} == {len(sheet.head)}
    assert [row[0] for row in found["small: 24 runs"].rows] == list(EVERYONE)
    assert found["J by fault"].head == ("", "runs", *EVERYONE[1:])
    counts = {
        title: sum(int(row[1]) for row in found[title].rows) for title in found if "by " in title
    }
    assert counts == {"J by fault": 24, "J by data set": 24}
    labelled = found["First right, labelled"].rows
    assert sum(int(row[1]) for row in labelled) == result.rows["no-op"].curable.sum()
    assert {row[-1] for row in labelled} == {"1.00"}
    assert [row[0] for row in found["Confidence and uncertainty"].rows] == ["clone", "learned"]


@pytest.mark.parametrize(
    ("figure", "text"),
    [
        (Figure(0.4126, -0.0004, 1.0, 3), ".413 (.000 … 1.000)"),
        (Figure(-0.5, -1.25, -0.0316, 3), "-.500 (-1.250 … -.032)"),
        (Figure(np.nan, np.nan, np.nan, 0), "–"),
        (Figure(0.5, np.nan, np.nan, 1), ".500 (– … –)"),
    ],
)
def test_figures_are_written_with_their_interval(figure, text):
    assert span(figure) == text


def test_the_reliability_plot_marks_where_bins_are_and_should_be():
    bins = [
        {"confidence": 0.05, "frequency": 0.05, "count": 900},
        {"confidence": 0.5, "frequency": 1.0, "count": 12},
    ]
    _, same, apart = reliability_plot(CohortResult({}, {}, {}, {"width": bins})).splitlines()
    plots = [line.split("|")[1] for line in (same, apart)]
    assert plots[0] == f"  @{' ' * 38}"
    assert plots[1] == f"{' ' * 20}o{' ' * 19}#"
    assert same.split()[:3] == ["0.050", "0.050", "900"]


def test_the_card_says_how_to_repeat_it_and_what_was_missed(done):
    page = card(done, "tamiyo evaluate somewhere")
    assert "tamiyo evaluate somewhere" in page
    assert "2 evaluation seeds (0 to 1) of 12 runs" in page
    missed = [one for one in done.judgements if not one.passed]
    assert 0 < len(missed) == page.count("**missed**")
    assert all(f"**missed**: small: {one.bar.name}" in page for one in missed)
    rows = done.results[0].rows["no-op"]
    assert f"24 runs, {rows.faulty.sum()} of them faulty, and {rows.curable.sum()} of" in page
    assert "### Reliability of learned" in page
    assert "### Reliability of rules" not in page
    for name, value in done.versions.items():
        assert f"{name} {value}" in page
    tables = [line for line in page.splitlines() if line.startswith("| ---")]
    assert len(tables) == 7
