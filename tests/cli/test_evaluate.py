"""`tamiyo evaluate` as a person and as a script run it."""

import json
import shutil
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from tamiyo.bench.evaluation.lineup import COHORTS
from tamiyo.bench.evaluation.resampling import Figure
from tamiyo.bench.evaluation.result import CohortResult, SplitResult
from tamiyo.bench.evaluation.sheets import sheets
from tamiyo.bench.evaluation.splits import GROUPS, SPLITS
from tamiyo.cli import evaluate as command
from tamiyo.cli.main import app
from tamiyo.envs.training.faults import FaultKind
from tamiyo.envs.training.sampling import TrainingConfig
from tamiyo.policy import EnhancedTamiyoPolicyGNN

RUN = CliRunner()


@pytest.fixture(autouse=True)
def _short_episodes(monkeypatch):
    """Splits by the same names, of runs that take a moment."""
    short = TrainingConfig(decisions=6, interval=3, max_hidden=2, widths=(16,), held_out=32)
    find = command.find_splits

    def shortened(names):
        return [type(split)(split.name, short, split.offset) for split in find(names)]

    monkeypatch.setattr(command, "find_splits", shortened)


@pytest.fixture(scope="module")
def checkpoint(small_network, tmp_path_factory):
    folder = tmp_path_factory.mktemp("policy")
    small_network().save_pretrained(folder, {"command": "none: it is not trained"})
    return str(folder)


def run(*options):
    return RUN.invoke(app, ["evaluate", "--seeds", "2", "--hosts", "2", *options])


def test_it_prints_the_cohorts(checkpoint):
    done = run(checkpoint, "--also", f"clone={checkpoint}")
    assert done.exit_code == 0, done.output
    assert "validation: 4 runs" in done.stdout
    for name in COHORTS:
        assert f"\n{name} " in done.stdout


def test_other_seeds_are_other_runs_of_which_the_command_tells(checkpoint):
    options = (checkpoint, "--json", "--cohorts", "oracle")
    one, other = (json.loads(run(*options, *more).stdout) for more in ((), ("--first-seed", "2")))
    assert one["splits"] != other["splits"]
    assert other["first_seed"] == 2
    assert "--first-seed 2" in other["command"]
    assert "--first-seed" not in one["command"]


def test_json_is_one_document_and_repeats(checkpoint):
    options = (checkpoint, "--json", "--split", "validation,test:wine", "--cohorts", "learned")
    one, other = run(*options), run(*options)
    told = json.loads(one.stdout)
    assert told == json.loads(other.stdout)
    assert list(told["splits"]) == ["validation", "test:wine"]
    assert told["cohorts"] == ["no-op", "learned"]
    assert told["command"].startswith(f"tamiyo evaluate {checkpoint} --split validation,test:wine")


def test_check_exits_with_1_and_says_what_is_missed_and_how_far(checkpoint):
    done = run(checkpoint, "--cohorts", "learned,rules,oracle", "--check")
    assert done.exit_code == 1
    said = " ".join(done.stderr.split())
    assert "decision accuracy: 0.000, > 0.8 is asked for, missed by 0.800" in said


@pytest.fixture
def asked(monkeypatch):
    """Names of the splits that are asked for, instead of an evaluation of them."""
    names = []

    def remember(request, *_):
        names.extend(split.name for split in request.splits)
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "run", remember)
    return names


@pytest.mark.parametrize(
    ("options", "splits"),
    [
        ((), ["validation"]),
        (("--check",), ["validation", *GROUPS["test"]]),
        (("--check", "--split", "train"), ["train"]),
    ],
)
def test_checking_alone_looks_at_unseen_data_as_well(asked, options, splits):
    assert run("--cohorts", "no-op", *options).exit_code == 130
    assert asked == splits


def test_an_interrupt_is_one_line(asked):
    done = run("--cohorts", "no-op")
    assert done.stderr.strip() == "Interrupted: nothing was written."


def test_checking_says_what_was_not_looked_at_and_that_seeds_are_few(checkpoint):
    options = (checkpoint, "--cohorts", "learned,rules", "--split", "train", "--check")
    noted = " ".join(run(*options).stderr.split())
    assert "Not looked at, because they hold for validation: share of the oracle's J; " in noted
    assert "AUROC of the uncertainty." in noted
    assert "2 seeds: 10 are the least that should be quoted." in noted
    noted = " ".join(run(*options, "--seeds", "10", "--hosts", "1").stderr.split())
    assert "should be quoted" not in noted


def test_check_exits_with_0_when_all_bars_are_reached(monkeypatch):
    monkeypatch.setattr("tamiyo.bench.evaluation.bars.BARS", ())
    monkeypatch.setattr("tamiyo.bench.evaluation.evaluation.judge", lambda _: [])
    done = run("--cohorts", "no-op", "--check")
    assert done.exit_code == 0
    assert "All 0 bars are reached" in done.stderr


def test_card_and_rows_are_written(tmp_path):
    card, rows = tmp_path / "new" / "card.md", tmp_path / "other" / "rows.jsonl"
    done = run("--cohorts", "rules,oracle", "--card", str(card), "--rows", str(rows))
    assert done.exit_code == 0, done.output
    assert "--seeds 2 --hosts 2 --cohorts no-op,rules,oracle" in card.read_text()
    records = [json.loads(line) for line in rows.read_text().splitlines()]
    assert len(records) == 2 * 2 * 3


@pytest.mark.parametrize("option", ["--card", "--rows"])
@pytest.mark.parametrize("name", ["folder", "file/within"])
def test_outputs_are_tried_before_any_work(tmp_path, asked, option, name):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    done = run("--cohorts", "no-op", option, str(tmp_path / name))
    assert done.exit_code == 2
    assert "cannot write" in done.stderr
    assert not asked


@pytest.mark.parametrize("other", [False, True])
def test_the_folder_of_a_training_is_not_its_policy_but_near(tmp_path, checkpoint, other):
    inside = tmp_path / "policy"
    shutil.copytree(checkpoint, inside)
    done = run(checkpoint, "--also", f"seed-1={tmp_path}") if other else run(str(tmp_path))
    assert done.exit_code == 2
    said = "".join(done.stderr.replace("│", " ").split())
    assert f"Didyoumean{inside}?" in said


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--cohorts", "rules", "--split", "tset"), "unknown split"),
        (("--cohorts", "ruels"), "unknown cohort"),
        (("--cohorts", "clone"), "unknown cohort"),
        (("--also", "clone"), "a name of its own and a folder"),
        (("--also", "a=b", "--also", "a=c"), "a name of its own and a folder"),
        (("--also", "rules=b"), "cannot be called"),
        (("nowhere",), "cannot read the checkpoint"),
        (("--seeds", "0"), "greater than or equal to 1"),
        (("--first-seed", "999999"), "no 2 seeds from 999999 on"),
    ],
)
def test_bad_arguments_exit_with_2(options, says):
    done = run(*options)
    assert done.exit_code == 2
    assert says in " ".join(done.stderr.replace("│", " ").split())


def test_without_a_shipped_policy_it_says_so(monkeypatch):
    monkeypatch.setattr(command, "shipped", lambda: None)
    done = run()
    assert done.exit_code == 2
    said = " ".join(done.stderr.replace("│", " ").split())
    assert "no policy comes with this installation" in said


def test_the_shipped_policy_is_the_one_that_plays(monkeypatch, checkpoint):
    monkeypatch.setattr(command, "shipped", lambda: Path(checkpoint))
    done = run("--cohorts", "learned", "--json")
    version = EnhancedTamiyoPolicyGNN.from_pretrained(checkpoint).version
    assert json.loads(done.stdout)["versions"]["learned"] == version


def test_the_widest_tables_fit_into_80_columns():
    share, number = Figure(1.0, 1.0, 1.0, 320), Figure(-0.8888, -0.8888, -0.8888, 320)
    shares = ("decision_accuracy", "false_alarms", "acted_accuracy", "early_alarms")
    plain = ("objective", "objective_faulty", "objective_healthy", "accuracy", "actions")
    found = {**dict.fromkeys(shares, share), **dict.fromkeys(plain, number)}
    found |= {"delay": Figure(180.0, 1.0, 1.0, 9)}
    found |= {name: Figure(0.08, 0.05, 0.13, 9) for name in ("ece", "ece_width", "ece_acted")}
    found |= {"auroc": Figure(0.88, 0.75, 0.96, 9)}
    groups = {kind.value: found for kind in FaultKind}
    cohort = CohortResult(found, groups, groups, {"mass": [{}]})
    pairs = {"oracle - learned": number}
    result = SplitResult(
        SPLITS["validation"], {"": range(320)}, dict.fromkeys(COHORTS, cohort), pairs
    )
    console = Console(width=200)
    for sheet in sheets(result):
        width = console.measure(command._table(sheet)).maximum
        assert width <= 80, sheet.title
