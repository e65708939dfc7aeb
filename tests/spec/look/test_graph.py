"""The drawn graph: layers, arrows, names."""

import re

from trainwright.spec.look.graph import Node, draw_graph, layers


def node(name: str, *needs: str) -> Node:
    return Node(name=name, needs=needs, state="done", title=f"{name}: a phase", below="done")


def test_the_graph_is_layered_and_implied_arrows_are_left_out() -> None:
    nodes = (node("a"), node("b", "a"), node("c", "a", "b"), node("d", "b"))
    assert layers(nodes) == [["a"], ["b"], ["c", "d"]]
    svg = draw_graph(nodes, 800, "wide", down=False)
    assert svg.count('class="arrow"') == 3
    assert svg.count('class="node done"') == 4


def test_long_names_are_cut_to_their_box_and_stay_in_the_title() -> None:
    name = "a-very-long-name-of-a-stage-that-fits-no-box"
    svg = draw_graph((node(name),), 400, "narrow", down=True)
    assert f"<title>{name}" in svg
    assert f">{name}</text>" not in svg


def test_names_are_escaped() -> None:
    svg = draw_graph((node("<b>"),), 400, "wide", down=False)
    assert "<b>" not in svg
    assert "&lt;b&gt;" in svg


def test_a_deep_graph_goes_on_below_instead_of_beyond_the_page() -> None:
    nodes = [node("0"), *(node(str(n), str(n - 1)) for n in range(1, 20))]
    svg = draw_graph(nodes, 1100, "wide", down=False)
    width, height = map(int, re.search(r'viewBox="0 0 (\d+) (\d+)"', svg).groups())  # type: ignore[union-attr]
    assert width <= 1100
    assert len(set(re.findall(r'<rect x="[\d.]+" y="([\d.]+)"', svg))) == 3
    assert height < 300
