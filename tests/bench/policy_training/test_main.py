"""`python -m tamiyo.bench.policy_training` as a person runs it."""

import pytest

from tamiyo.bench.policy_training.__main__ import main
from tamiyo.bench.policy_training.history import History


def test_it_prints_the_curve(tmp_path, capsys):
    History(tmp_path).add("clone", 1, {"imitation": 0.25})
    main([str(tmp_path)])
    assert "| 1 | 0.2500 | – |" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "said"), [((), "required: folder"), (("nowhere",), "nowhere holds no history")]
)
def test_what_makes_no_sense_is_refused(capsys, arguments, said):
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert said in capsys.readouterr().err
