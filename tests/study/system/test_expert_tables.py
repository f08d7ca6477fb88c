"""One expert by tokens, as it is told."""

import pytest

from perfmodel.config import SimulationConfig
from perfmodel.expert_times import ExpertTimes, Lost, expert_times
from perfmodel.in_memory_config import InMemory
from study.system.expert_tables import COLUMNS, cells, lost_in_words


@pytest.fixture(scope="module")
def times() -> ExpertTimes:
    return expert_times("gpt-oss-20b", SimulationConfig(in_memory=InMemory()), tokens=(1, 4))


def test_a_sentence_says_each_number_and_what_is_never_lost(times: ExpertTimes) -> None:
    lost = Lost(to_resident=1, to_fetched=8, to_host_fetched=1200, to_host=None, more_to_resident=5)
    alone, busy = lost_in_words(times.model_copy(update={"lost": lost}))
    assert alone == (
        "Alone in memory, an expert loses to the device with its weights there from the first token on, to being "
        "fetched from that memory from 8 tokens on, to being fetched from the host from 1\u202f200 tokens on and to "
        "the host's processor at no number up to 4\u202f096."
    )
    assert busy == "While every group of the memory is busy, one more expert loses to the device from 5 tokens on."


def test_a_host_that_is_not_known_is_not_told(times: ExpertTimes) -> None:
    rows = [row.model_copy(update={"host_s": None}) for row in times.times]
    unknown = times.model_copy(update={"times": rows})
    assert "processor" not in " ".join(lost_in_words(unknown))
    assert len(cells(rows[0])) == len(COLUMNS)
    assert cells(rows[1])[0] == "4"
    assert cells(rows[0])[-1] == "–"
