"""Every public callable, every parameter, every kind of wrong argument: refused by name, at once, or known to work."""

import hostile_arguments as hostile
import pytest

WITH_THREADS = [name for name, case in hostile.TABLE.items() if "num_threads" in case.kinds]


def faults(case, names):
    """What is wrong with the answers to every value in the place of each of the parameters."""
    found = []
    for name in names:
        for label, value, verdict in case.kinds[name].values(case.fresh()[name]):
            fault = case.judge(name, value, verdict)
            if fault is not None:
                found.append(f"{name} = {label}: {fault}")
    return found


@pytest.mark.parametrize("name", hostile.TABLE)
def test_wrong_arguments_are_refused_by_name_and_right_ones_work(name):
    case = hostile.TABLE[name]
    case.function(**case.fresh())
    assert faults(case, [parameter for parameter in case.kinds if parameter != "num_threads"]) == []


@pytest.mark.parametrize("name", WITH_THREADS)
def test_wrong_numbers_of_threads_are_refused_by_name(name):
    assert faults(hostile.TABLE[name], ["num_threads"]) == []


def test_every_public_callable_is_in_the_table_with_every_parameter():
    missing = [name for name in hostile.public() if name not in hostile.TABLE and not hostile.excused(name)]
    assert missing == []
    for name, function in hostile.public().items():
        if name in hostile.TABLE:
            assert set(hostile.TABLE[name].kinds) == hostile.parameters(function), name
