import copy

from edge.errors import EngineError, MmtlError


def test_an_error_is_printed_as_its_problem_and_its_remedy() -> None:
    error = EngineError("there is no driver (libcuda.so.1: not found)", remedy="install it")
    assert str(error) == "there is no driver (libcuda.so.1: not found): install it"
    assert (error.problem, error.remedy) == ("there is no driver (libcuda.so.1: not found)", "install it")


def test_a_colon_in_a_problem_makes_no_remedy() -> None:
    error = MmtlError("a: b")
    assert (str(error), error.problem, error.remedy) == ("a: b", "a: b", "")


def test_a_copy_of_an_error_keeps_its_parts() -> None:
    error = copy.copy(MmtlError("a", remedy="b"))
    assert (str(error), error.problem, error.remedy) == ("a: b", "a", "b")
