from multipert.data import offer


def test_close_names_come_first() -> None:
    assert offer("celltype", ["donor", "n_counts", "Cell_Type"]) == "there are 'Cell_Type', 'donor', 'n_counts'"


def test_long_lists_are_cut() -> None:
    assert offer("x", range(100)).endswith("'11' and 88 more")


def test_one_and_none() -> None:
    assert offer("x", ["y"]) == "there is 'y'"
    assert offer("x", []) == "there are none"
