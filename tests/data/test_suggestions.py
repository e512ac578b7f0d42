from multipert.data import did_you_mean


def test_the_closest_name_is_guessed_and_comes_first_whatever_its_case() -> None:
    said = "did you mean 'Cell_Type'? there are 'Cell_Type', 'donor', 'n_counts'"
    assert did_you_mean("celltype", ["donor", "n_counts", "Cell_Type"]) == said


def test_a_long_list_is_cut() -> None:
    assert did_you_mean("x", range(100)).endswith("'11' and 88 more")


def test_one_name_and_none() -> None:
    assert did_you_mean("Y", ["y"]) == "did you mean 'y'?"
    assert did_you_mean("x", ["y"]) == "there is 'y'"
    assert did_you_mean("x", []) == "there are none"
